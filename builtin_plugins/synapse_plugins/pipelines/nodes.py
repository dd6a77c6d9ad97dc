"""
How one node instance is run: its params, its child run, its cached or recorded result.

A child run's id follows from the pipeline's and the instance's name, so it is the same when an interrupted
pipeline goes on: an action finds its checkpoints under it, and can use it as a key to do things only once.
"""

from __future__ import annotations

import hashlib
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from synapse_kernel.contracts import ErrorInfo, KnownResult, RunPlace
from synapse_kernel.control import Control
from synapse_kernel.errors import ParamsError, RunCancelled, SynapseError, UsageError
from synapse_kernel.models import check_type
from synapse_kernel.opening import open_sinks, secrets_of
from synapse_kernel.params import Layer
from synapse_kernel.plugins import warn
from synapse_kernel.preparation import Prepared, RunOptions, prepare
from synapse_kernel.runs import conduct
from synapse_kernel.serialization import params_to_plain
from synapse_kernel.stores import StoreError, kept_result
from synapse_kernel.worker import cancelled, describe_error
from synapse_plugins.pipelines.definition import action_label, references_of
from synapse_plugins.pipelines.references import resolve
from synapse_plugins.pipelines.scheduler import Done, Job, as_info
from synapse_plugins.pipelines.targets import find_action, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import ActionRef, ActionSpec, JsonObject, Outcome
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import ChildResult, RunStore
    from synapse_plugins.pipelines.definition import NodeSpec, PipelineSpec
    from synapse_plugins.pipelines.work_folders import PipelineContext

CACHE = "cache"
"""The store's scope for results that may be used again."""


class Plan(Protocol):
    """A pipeline that can be run, whichever way it was written."""

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as data."""

    def check_for(self, kernel: Kernel) -> None:
        """Raise `PipelineError` with all that is wrong with the pipeline, if it has not been checked yet."""

    def param_types(self, kernel: Kernel) -> Mapping[str, object]:
        """Return the types of the pipeline's params, as far as one can tell."""

    def join_params(self, given: Mapping[str, object]) -> JsonObject:
        """Return the pipeline's params from those that were given; raises `ParamsError` with all mistakes."""

    def params_for(self, node: NodeSpec, scope: Mapping[str, object]) -> Mapping[str, object]:
        """
        Return what a node's action is given.

        `scope` is what references may name: the results by node, the pipeline's params as ``params``.
        """

    def release(self) -> None:
        """Let go of what is kept for a run, as one has ended; another under way loses no more than time."""


class Restored(msgspec.Struct, frozen=True):
    """A node instance that was done before the pipeline was interrupted."""

    result: object
    run_id: str


class NodeRunner:
    """Runs node instances, from any thread."""

    def __init__(
        self,
        kernel: Kernel,
        plan: Plan,
        run_id: str,
        folders: PipelineContext,
        *,
        children: Mapping[str, ChildResult],
        stale: frozenset[str],
        use_cache: bool,
        executor: str | None,
        store: RunStore | None,
    ) -> None:
        self.plan = plan
        self.folders = folders
        self._kernel = kernel
        self._run_id = run_id
        self._children = children
        self._stale = stale
        self._use_cache = use_cache
        self._executor = executor
        self._store = store
        self._actions: dict[str | ActionRef, tuple[ActionSpec, ActionCode]] = {}
        self._fingerprints: dict[str | ActionRef, str] = {}
        self._lock = threading.Lock()

    def child_id(self, key: str) -> str:
        """Return the id of a node instance's run."""
        return hashlib.blake2b(f"{self._run_id}/{key}".encode(), digest_size=8).hexdigest()

    def described(self, job: Job) -> dict[str, object]:
        """Return what is told of an instance as it starts."""
        told: dict[str, object] = {"run": self.child_id(job.key), "action": action_label(job.node.action)}
        executor = job.node.executor or self._executor
        return {**told, "executor": executor} if executor else told

    def can_do_without(self, node: NodeSpec, need: str) -> bool:
        """Tell whether a node has a default wherever it refers to another, and does not name it as a need."""
        if need in node.needs:
            return False
        return all(r.has_default for r in references_of(node) if r.node == need)

    def restored(self, job: Job) -> Restored | None:
        """Return an instance's recorded result, of the type that its action says; None if it must run."""
        child = self._children.get(job.key)
        if child is None or not child.reusable or child.result is None or job.node.name in self._stale:
            return None
        result: object = msgspec.json.decode(child.result)
        try:
            return Restored(self._typed(job.node, result), child.run_id)
        except Exception:  # noqa: BLE001 - whatever a model's own checks raise
            # The action's result model has changed: what was recorded is no result of it any more.
            return None

    def run(self, job: Job) -> Done:
        """Run an instance to its end and say what became of it; raises nothing."""
        start = perf_counter()
        try:
            done = self._run(job)
        except StoreError as error:
            done = Done(job=job, state="failed", error=as_info(error), fatal=True)
        except SynapseError as error:
            done = Done(job=job, state="failed", error=as_info(error))
        except RunCancelled:
            done = Done(job=job, state="cancelled", error=cancelled())
        except BaseException as error:  # noqa: BLE001 - the pipeline waits for an answer, whatever happened
            done = Done(job=job, state="failed", error=describe_error(error, "executor"))
        done.seconds = perf_counter() - start
        return done

    def _run(self, job: Job) -> Done:
        node, run_id = job.node, self.child_id(job.key)
        prepared = self._prepared(job, run_id)
        cache_key = self._cache_key(job, prepared) if node.cache and self._store is not None else None
        known = self._cached(node, prepared, cache_key) if cache_key is not None and self._use_cache else None
        if known is not None:
            place = msgspec.structs.replace(prepared.request.place, known=known)
            request = msgspec.structs.replace(prepared.request, place=place)
            prepared = msgspec.structs.replace(prepared, request=request)
        control = Control(self._kernel.settings.kernel.grace)
        outcome = conduct(self._kernel, prepared, control, open_sinks(self._kernel, prepared), inline=True)
        if outcome.unrecorded is not None:
            return self._lost(job, outcome)
        if outcome.ok and cache_key is not None and known is None:
            self._keep(cache_key, outcome, secrets_of(prepared))
        return Done(
            job=job,
            state=outcome.status,
            result=outcome.result,
            error=outcome.error,
            run_id=run_id,
            cached_from=None if known is None else known.run_id,
        )

    def _prepared(self, job: Job, run_id: str) -> Prepared:
        node = job.node
        params = self.plan.params_for(node, job.scope)
        target, action = target_of(node.action, self.plan.spec.base, self._kernel)
        env = resolve(node.env, job.scope) if node.env is not None else None
        place = RunPlace(
            run_id=run_id,
            resume=job.key in self._children,
            parent=self._run_id,
            node=job.key,
            work_dir=self.folders.node_path(job.key),
        )
        options = RunOptions(
            executor=node.executor or self._executor,
            resources=node.resources,
            env=env,  # type: ignore[arg-type] # validated with the pipeline
            timeout=node.timeout,
            retries=node.retries,
            place=place,
        )
        origin = f"node {job.key!r}"
        try:
            return prepare(self._kernel, target, action, [Layer(params, origin)], options)
        except ParamsError:
            # A model that one action gave is none of another's, however like it is: as JSON it may be.
            try:
                plain = params_to_plain(params)
            except UsageError:
                plain = None
            if plain is None or plain == params:
                raise
            return prepare(self._kernel, target, action, [Layer(plain, origin)], options)

    def _lost(self, job: Job, outcome: Outcome) -> Done:
        """End the pipeline where a node's outcome could not be recorded: nothing may build on it."""
        error = outcome.unrecorded
        text = f"its outcome could not be recorded, and the pipeline does not go on without: {error}"
        info = ErrorInfo(type=type(error).__name__, message=text, kind="executor")
        return Done(job=job, state="failed", error=info, run_id=outcome.run_id, fatal=True)

    def _typed(self, node: NodeSpec, result: object) -> object:
        code = self._action_of(node)[1]
        return result if code.result_type is None else check_type(code.result_type, result)

    def _action_of(self, node: NodeSpec) -> tuple[ActionSpec, ActionCode]:
        """Return the spec and code of a node's action; raises `SynapseError` if it cannot be found."""
        found = self._actions.get(node.action)
        if found is None:
            found = find_action(node.action, self.plan.spec.base, self._kernel)
            self._actions[node.action] = found
        return found

    def _cache_key(self, job: Job, prepared: Prepared) -> str:
        from synapse_plugins.pipelines.fingerprints import cache_key, code_fingerprint

        node, code = job.node, prepared.code
        with self._lock:
            fingerprint = self._fingerprints.get(node.action)
            if fingerprint is None:
                fingerprint = code_fingerprint(prepared.request.action, code)
                self._fingerprints[node.action] = fingerprint
        inputs = [str(path) for path in resolve(node.inputs, job.scope)]  # type: ignore[attr-defined]
        params = prepared.merged.values if code.params_type is None else prepared.params
        return cache_key(fingerprint, params, params_type=code.params_type, inputs=inputs)

    def _cached(self, node: NodeSpec, prepared: Prepared, key: str) -> KnownResult | None:
        from synapse_plugins.pipelines.fingerprints import outputs_present

        assert self._store is not None
        raw = self._store.value(CACHE, key)
        if raw is None:
            return None
        entry = msgspec.json.decode(raw)
        try:
            result = self._typed(node, entry["result"])
        except Exception:  # noqa: BLE001 - whatever a model's own checks raise
            return None
        if not outputs_present(result, prepared.code.result_type):
            return None
        return KnownResult(result, entry["run_id"])

    def _keep(self, key: str, outcome: Outcome, secrets: Sequence[str]) -> None:
        assert self._store is not None
        result, reusable = kept_result(outcome.result, secrets)
        if not reusable:
            return
        entry = {"run_id": outcome.run_id, "result": result}
        try:
            self._store.put(CACHE, {key: msgspec.json.encode(entry)}, run_id=outcome.run_id)
        except SynapseError as error:
            warn(f"The result of run {outcome.run_id} is not cached: {error}")
