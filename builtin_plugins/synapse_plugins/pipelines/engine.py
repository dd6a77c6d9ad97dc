"""
Starting a pipeline, and going on with one that was interrupted.

A pipeline's run is a run like any other, of the executor `pipeline`; its action is the `Scheduler`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.actions import action
from synapse_kernel.contracts import JsonObject, RunPlace
from synapse_kernel.errors import Problem, ProblemsError, SynapseError, UsageError
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.opening import work_dir_of
from synapse_kernel.redaction import MASK, is_secret_name, may_hold_secret_names, redact
from synapse_kernel.serialization import to_jsonable
from synapse_kernel.stores import RunBusyError, RunNotFoundError
from synapse_plugins.pipelines.amendments import amend, amended, counting, keep_amendment, read_amendment
from synapse_plugins.pipelines.changes import changed_nodes, changes
from synapse_plugins.pipelines.definition import dependencies, document_of, references_of
from synapse_plugins.pipelines.executor import PIPELINE_MARK
from synapse_plugins.pipelines.followers import Followers, following, reached, read_marks
from synapse_plugins.pipelines.nodes import NodeRunner, Plan
from synapse_plugins.pipelines.param_types import check_param_types, secret_fields, secret_params
from synapse_plugins.pipelines.references import lone_reference
from synapse_plugins.pipelines.scheduler import Scheduler
from synapse_plugins.pipelines.targets import find_action
from synapse_plugins.pipelines.work_folders import PipelineContext

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse_kernel.context import RuntimeContext
    from synapse_kernel.contracts import Outcome
    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import ChildResult, RunRecord, RunStore
    from synapse_plugins.pipelines.amendments import Amendment


OWN_OPTIONS = frozenset({"resume", "force", "use_cache", "concurrency", "executor", "record", "target"})
"""What `Launch` takes by name; the rest of a caller's options are those of `Kernel.run`."""


class PipelineChangedError(ProblemsError):
    """A pipeline that is to go on is not the one that was interrupted; `problems` says what differs."""


class Launch:
    """
    One execution of a pipeline that is about to start: everything that can be wrong has been found.

    With `resume`, the id of an interrupted run, it goes on: nodes that were done are not run again. If the
    pipeline has changed since, `force` lets it: then what changed is run again, and what follows from it.
    Without `use_cache` no cached result is taken. `target` is how the pipeline is named in the history.
    `run_id` is the id of a new run. `conductor` is the executor of the pipeline's own run: ``pipeline``, or
    one that leaves it to that.
    """

    def __init__(
        self,
        kernel: Kernel,
        plan: Plan,
        params: Mapping[str, object] | None = None,
        *,
        resume: str | None = None,
        force: bool = False,
        use_cache: bool = True,
        concurrency: int | None = None,
        executor: str | None = None,
        record: bool | None = None,
        target: str | None = None,
        run_id: str | None = None,
        conductor: str = "pipeline",
    ) -> None:
        self._kernel = kernel
        self._plan = plan
        self._use_cache = use_cache
        self._executor = executor
        given = plan.spec.concurrency if concurrency is None else concurrency
        self._limit = max(4, os.cpu_count() or 1) if given is None else given
        if self._limit < 1:
            raise UsageError(f"concurrency must be 1 or more, got {self._limit}")
        store = kernel.store if record is not False else None
        self._store = store
        self._children: dict[str, ChildResult] = {}
        self._stale: frozenset[str] = frozenset()
        self._amendment: Amendment | None = None
        before = None
        if resume is not None:
            if store is None:
                raise UsageError(
                    f"Run {resume} cannot go on: there is no history here (see the setting store)"
                )
            kept = read_amendment(store, resume)
            before = amended(_interrupted(store, resume), kept)
            params = _params_to_go_on(before, params or {})
        types = plan.param_types(kernel)
        self._secret = secret_params(types)
        definition = _definition(kernel, plan, self._secret) if store is not None else None
        if before is None or definition != before.definition:
            # What is as it was when it started has been checked then.
            plan.check_for(kernel)
        self._params = plan.join_params(params or {})
        check_param_types(plan.spec.name, types, self._params)
        if before is not None and store is not None and definition is not None:
            changed = self._changed(before, definition, force=force)
            children = store.children(before.run_id)
            if changed is not None:
                self._stale = changed
                kept = amend(kept, definition, self._params, children, changed, self._secret)
                self._amendment = kept
            self._children = counting(children, kept, read_marks(store, before.run_id))
        self._attempt = None if before is None else before.attempt + 1
        self._folder = None if before is None else before.work_dir
        self._action = self._made_action()
        self._settled: dict[str, object] = {
            "executor": conductor,
            "record": True if store is not None else record,
            "place": RunPlace(
                run_id=resume or run_id,
                resume=resume is not None,
                kind="pipeline",
                definition=definition,
                target=target,
                # Where it began, whatever the settings say by now.
                work_dir=self._folder,
                secret=self._secret,
            ),
        }

    def submit(self, **options: object) -> Run:
        """Start the pipeline and return its run's handle; `options` are those of `Kernel.submit`."""
        return self._kernel.submit(self._action, None, self._params, **self._settled, **options)  # type: ignore[arg-type]

    def execute(self, **options: object) -> Outcome:
        """Run the pipeline to its end and return its outcome; `options` are those of `Kernel.run`."""
        return self._kernel.run(self._action, None, self._params, **self._settled, **options)  # type: ignore[arg-type]

    def _changed(self, before: RunRecord, definition: JsonObject, *, force: bool) -> frozenset[str] | None:
        """
        Return the nodes whose recorded results do not count any more, None if nothing changed.

        Raises `PipelineChangedError`.
        """
        old = before.definition or {}
        told = changes(old, definition)
        different = _different_params(before, self._params)
        for name in different:
            was, is_ = before.params[name], self._params[name]
            if name in self._secret or is_secret_name(name):
                # Not known as a secret when it was recorded.
                was = is_ = MASK
            told.append(f"params: {name!r} was {was!r}, is {is_!r}")
        if not told:
            return None
        if not force:
            raise PipelineChangedError(
                f"Run {before.run_id} was of another pipeline than this is now:",
                [Problem("", text) for text in told],
                hint="go on all the same, running again what changed, with --force; or start a new run",
            )
        changed = changed_nodes(old, definition) | _nodes_with(different, self._plan)
        return frozenset(changed | reached(changed, following(dependencies(self._plan.spec))))

    def _made_action(self) -> object:
        spec = self._plan.spec

        def run_pipeline(params: JsonObject, ctx: RuntimeContext) -> object:
            if self._attempt is not None and ctx.attempt != self._attempt:
                # What was read of it before it was claimed is out of date.
                raise SynapseError(
                    f"Another process went on with run {ctx.run_id}, and broke off, "
                    "as this one was about to\n"
                    f"  go on with it once more: --resume {ctx.run_id}"
                )
            if self._amendment is not None and self._store is not None:
                # Here the run is claimed, and no node of the changed pipeline has begun.
                keep_amendment(self._store, ctx.run_id, self._amendment)
            folder = self._folder or work_dir_of(self._kernel, ctx.run_id)
            runner = NodeRunner(
                self._kernel,
                self._plan,
                ctx.run_id,
                PipelineContext(os.path.dirname(folder), ctx.run_id),  # noqa: PTH120 - text as it is
                children=self._children,
                stale=self._stale,
                use_cache=self._use_cache,
                executor=self._executor,
                store=self._store,
            )
            followers = Followers(
                ctx.run_id, dependencies(spec), self._children, self._store if self._children else None
            )
            try:
                return Scheduler(runner, ctx, params, self._limit, followers).run()
            finally:
                self._plan.release()

        setattr(run_pipeline, PIPELINE_MARK, True)
        description = spec.description or f"The pipeline {spec.name}."
        return action(name=spec.name, description=description)(run_pipeline)


def _definition(kernel: Kernel, plan: Plan, secret: Collection[str]) -> JsonObject:
    """
    Return the pipeline as the history keeps it: with a fingerprint of each node's code, without secrets.

    The params in `secret` are masked, whatever they are called.
    """
    from synapse_plugins.pipelines.fingerprints import code_fingerprint

    # Secrets that stand in `with` are as little for the history as those of a run.
    document = document_of(plan.spec)
    if may_hold_secret_names(msgspec.json.encode(document)):
        document = cast("JsonObject", redact(document))
    defaults = cast("JsonObject", document.get("params", {}))
    defaults.update((name, MASK) for name in secret if defaults.get(name) is not None)
    nodes = cast("list[JsonObject]", document.get("nodes", []))
    fingerprints: dict[object, str | None] = {}
    secrets: dict[object, tuple[str, ...]] = {}
    for node, written in zip(plan.spec.nodes, nodes, strict=True):
        if node.action not in fingerprints:
            try:
                found, code = find_action(node.action, plan.spec.base, kernel)
                fingerprints[node.action] = code_fingerprint(found, code)
            except SynapseError:
                # The node may never be reached; if it is, this is said then.
                fingerprints[node.action] = None
            else:
                secrets[node.action] = secret_fields(code)
        given = cast("JsonObject", written.get("with", {}))
        given.update(
            (name, MASK)
            for name in secrets.get(node.action, ())
            if name in given and lone_reference(given[name]) is None
        )
        if fingerprints[node.action] is not None:
            written["code"] = fingerprints[node.action]
    return document


def _interrupted(store: RunStore, run_id: str) -> RunRecord:
    """Return the record of a run that can go on; raises a `SynapseError` that says why it cannot."""
    store.reap()
    record = store.get(run_id)
    if record is None:
        raise RunNotFoundError(run_id, url=store.url)
    if record.kind != "pipeline":
        raise UsageError(
            f"Run {run_id} is of the action {record.action!r}, not of a pipeline\n"
            f"  go on with it by: synapse-kernel runs retry {run_id}"
        )
    if record.status == "succeeded":
        raise UsageError(
            f"Run {run_id} has succeeded: there is nothing left to do\n"
            f"  see its result with: synapse-kernel runs show {run_id}"
        )
    if record.status not in FINAL_STATUSES and record.owner is not None:
        raise RunBusyError(run_id, record.owner)
    return record


def _params_to_go_on(before: RunRecord, given: Mapping[str, object]) -> dict[str, object]:
    missing = [name for name in before.masked if name.partition(".")[0] not in given]
    if missing:
        raise ProblemsError(
            f"Run {before.run_id} had secret params, which the history does not keep; give them again:",
            [Problem(name, f"-p {name.partition('.')[0]}=VALUE") for name in missing],
        )
    # What was a default then is one now, should the pipeline's have changed.
    defaults = (before.definition or {}).get("params")
    were = defaults if isinstance(defaults, Mapping) else {}
    kept = {name: value for name, value in before.params.items() if were.get(name) != value}
    return {**kept, **given}


def _different_params(before: RunRecord, params: Mapping[str, object]) -> list[str]:
    """Return the params whose value is not the recorded one; of a secret it cannot be told."""
    secret = {place.partition(".")[0] for place in before.masked}
    recorded = before.params
    plain = cast("Mapping[str, object]", to_jsonable(params))
    return [n for n, value in plain.items() if n in recorded and n not in secret and recorded[n] != value]


def _nodes_with(params: Collection[str], plan: Plan) -> set[str]:
    """Return the nodes that refer to any of these params."""
    return {
        node.name
        for node in plan.spec.nodes
        for reference in references_of(node)
        if reference.root == "params"
        and (not reference.path or str(getattr(reference.path[0], "name", "")) in params)
    }
