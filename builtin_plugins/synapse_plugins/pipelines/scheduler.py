"""
One execution of a pipeline: which node runs when, and what becomes of it.

One thread decides (`Scheduler.run`); nodes run in others, or in that same thread while there is but one to
run. A node's result is recorded before anything that needs it starts.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Mapping
from contextlib import suppress
from graphlib import TopologicalSorter
from queue import SimpleQueue
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.contracts import ErrorInfo
from synapse_kernel.errors import RunCancelled, SynapseError
from synapse_kernel.stores import StoreError
from synapse_kernel.worker import current_token, describe_error
from synapse_plugins.pipelines.conditions import holds
from synapse_plugins.pipelines.definition import NodeSpec, dependencies, last_nodes
from synapse_plugins.pipelines.references import lone_reference, resolve
from synapse_plugins.pipelines.workers import Workers

if TYPE_CHECKING:
    from synapse_kernel.context import RuntimeContext
    from synapse_plugins.pipelines.followers import Followers
    from synapse_plugins.pipelines.nodes import NodeRunner


class PipelineFailed(SynapseError):  # noqa: N818 - what the outcome of the pipeline's run says
    """A node failed and the pipeline with it; `info` is the error as the outcome tells it."""

    exit_code = 1

    def __init__(self, info: ErrorInfo) -> None:
        self.info = info
        super().__init__(info.message)


class Job(msgspec.Struct, kw_only=True):
    """A node instance to run."""

    node: NodeSpec
    key: str
    """The node's name, with the index of its instance: ``draw[3]``."""
    scope: Mapping[str, object]
    index: int | None = None


class Done(msgspec.Struct, kw_only=True):
    """What became of a node instance."""

    job: Job
    state: str
    result: object = None
    error: ErrorInfo | None = None
    run_id: str | None = None
    cached_from: str | None = None
    seconds: float = 0.0
    fatal: bool = False
    """The pipeline cannot go on, whatever the node says of its failures."""


class _Progress(msgspec.Struct, kw_only=True):
    """A node under way: its instances that wait, and the results of those that are done."""

    waiting: deque[Job]
    results: list[object]
    left: int
    running: int = 0
    failed: int = 0


class Scheduler:
    """Executes a pipeline once, in the thread that calls `run`."""

    def __init__(
        self,
        runner: NodeRunner,
        ctx: RuntimeContext,
        params: Mapping[str, object],
        concurrency: int,
        followers: Followers,
    ) -> None:
        self._runner = runner
        self._spec = runner.plan.spec
        self._ctx = ctx
        self._limit = concurrency
        self._followers = followers
        self._nodes = {node.name: node for node in self._spec.nodes}
        self._needs = dependencies(self._spec)
        self._scope: dict[str, object] = {"params": params, "run": runner.folders.names()}
        self._absent: dict[str, str] = {}
        """Nodes without a result, with the reason."""
        self._progress: dict[str, _Progress] = {}
        self._open: deque[str] = deque()
        """Nodes with instances that wait."""
        self._finished: SimpleQueue[Done | None] = SimpleQueue()
        self._running = 0
        self._failures: list[Done] = []
        self._workers = Workers(f"synapse-nodes-{ctx.run_id}")
        self._ended = 0.0
        """How many nodes are done."""
        self._restored: dict[str, str] = {}
        """Node instances that were done before, with their runs, which are still to be told of."""

    def run(self) -> object:
        """Run the nodes and return the pipeline's result; raises `PipelineFailed` and `RunCancelled`."""
        token = current_token()
        assert token is not None
        token.on_set(lambda: self._finished.put(None))
        self._say("pipeline_start", {"pipeline": self._spec.name, "nodes": list(self._nodes)})
        self._show_count()
        sorter = TopologicalSorter(self._needs)
        sorter.prepare()
        try:
            self._start_ready(sorter)
            while self._open or self._running:
                stopping = token.is_set or bool(self._failures)
                job = None if stopping else self._next()
                if job is None and not self._running:
                    break
                if job is not None and self._running == 0 and self._is_alone(job):
                    # A chain of nodes needs no second thread: handing over would cost more than a small node.
                    self._begin(job)
                    done: Done | None = self._runner.run(job)
                    self._running -= 1
                elif job is not None:
                    self._begin(job)
                    self._workers.start(lambda job=job: self._finished.put(self._runner.run(job)))  # type: ignore[misc]
                    continue
                else:
                    done = self._finished.get()
                    self._running -= done is not None
                if done is not None:
                    self._end_instance(done, sorter)
                    self._start_ready(sorter)
        finally:
            self._workers.close()
        if token.is_set:
            raise RunCancelled
        if self._failures:
            raise PipelineFailed(self._told())
        return self._result()

    def _start_ready(self, sorter: TopologicalSorter[str]) -> None:
        """Start the nodes whose needs are done, and those that become ready as others end at once."""
        ended = self._ended
        while ready := sorter.get_ready():
            for name in ready:
                if self._failures:
                    sorter.done(name)
                elif not self._start(self._nodes[name]):
                    sorter.done(name)
                    self._ended += 1
        # Told at once for all: of ten thousand nodes that were done, each by itself is too dear.
        if self._restored:
            restored, self._restored = self._restored, {}
            self._say("nodes_restored", {"nodes": restored})
        if self._ended != ended:
            self._show_count()

    def _start(self, node: NodeSpec) -> bool:
        """Make a node's instances; False if it is over already."""
        stale = self._followers.is_stale(node.name)
        try:
            reason = self._why_skipped(node)
            if reason is not None:
                self._skip(node, reason)
                return False
            items = self._items(node)
        except Exception as error:  # noqa: BLE001 - also what an object of an action's own raises
            return self._fail_early(node, error)
        jobs = self._jobs(node, items)
        if items is not None:
            self._say("node_items", {"node": node.name, "count": len(items)})
        results: list[object] = [None] * len(jobs)
        waiting: deque[Job] = deque()
        for at, job in enumerate(jobs):
            restored = None if stale else self._runner.restored(job)
            if restored is None:
                waiting.append(job)
            else:
                results[at] = restored.result
                self._restored[job.key] = restored.run_id
        if not waiting:
            self._scope[node.name] = results if items is not None else results[0]
            return False
        try:
            self._followers.begin(node.name)
        except StoreError as error:
            return self._fail_early(node, error)
        self._ended += (len(results) - len(waiting)) / len(results)
        self._progress[node.name] = _Progress(waiting=waiting, results=results, left=len(waiting))
        self._open.append(node.name)
        return True

    def _fail_early(self, node: NodeSpec, error: Exception) -> bool:
        """Fail a node before any instance of it began."""
        info = as_info(error) if isinstance(error, SynapseError) else describe_error(error, "params")
        job = Job(node=node, key=node.name, scope={})
        done = Done(job=job, state="failed", error=info, fatal=isinstance(error, StoreError))
        self._tell_end(done)
        self._fail(done)
        self._absent[node.name] = "failed"
        return False

    def _jobs(self, node: NodeSpec, items: list[object] | None) -> list[Job]:
        if items is None:
            return [Job(node=node, key=node.name, scope=self._scope)]
        return [
            Job(
                node=node,
                key=f"{node.name}[{index}]",
                scope=ChainMap({"item": item, "index": index}, self._scope),
                index=index,
            )
            for index, item in enumerate(items)
        ]

    def _why_skipped(self, node: NodeSpec) -> str | None:
        """Say why a node does not run: its condition, or a need without result that it has no default for."""
        for need in self._needs[node.name]:
            if need in self._absent and not self._runner.can_do_without(node, need):
                return f"{need} {self._absent[need]}"
        if node.when is None or holds(node.when, self._scope):
            return None
        return f"its condition does not hold: {node.when}"

    def _items(self, node: NodeSpec) -> list[object] | None:
        if node.foreach is None:
            return None
        items = resolve(node.foreach, self._scope)
        if isinstance(items, (list, tuple)):
            return list(items)
        told = lone_reference(node.foreach)
        what = told.text if told is not None else repr(node.foreach)
        raise SynapseError(f"foreach needs a list, and {what} is {type(items).__name__}: {_short(items)}")

    def _next(self) -> Job | None:
        """Take the next instance that may start now."""
        if self._running >= self._limit:
            return None
        for _ in range(len(self._open)):
            name = self._open[0]
            progress, most = self._progress[name], self._nodes[name].max_parallel
            if most is None or progress.running < most:
                job = progress.waiting.popleft()
                if not progress.waiting:
                    self._open.popleft()
                return job
            self._open.rotate(-1)
        return None

    def _is_alone(self, job: Job) -> bool:
        """Tell whether nothing else could start while an instance runs."""
        if self._limit == 1 or not self._open:
            return True
        return job.node.max_parallel == 1 and list(self._open) == [job.node.name]

    def _begin(self, job: Job) -> None:
        self._running += 1
        self._progress[job.node.name].running += 1
        self._say("node_start", {"node": job.key, **self._runner.described(job)})
        # At once: what the node says comes to the same sinks, and they must know by then which node it is.
        self._ctx.end_log()

    def _end_instance(self, done: Done, sorter: TopologicalSorter[str]) -> None:
        node, progress = done.job.node, self._progress[done.job.node.name]
        progress.running -= 1
        progress.left -= 1
        self._tell_end(done)
        self._followers.end_instance(node.name, done.job.key, succeeded=done.state == "succeeded")
        if done.state == "succeeded":
            progress.results[done.job.index or 0] = done.result
        else:
            progress.failed += 1
            self._fail(done)
        if not self._failures:
            # An instance of a `foreach` is a part of its node.
            self._count(1 / len(progress.results))
        if progress.left:
            return
        if progress.failed == 0 or (node.foreach is not None and progress.failed < len(progress.results)):
            self._scope[node.name] = progress.results if node.foreach is not None else progress.results[0]
        else:
            self._absent[node.name] = "failed"
        del self._progress[node.name]
        self._followers.end(node.name)
        sorter.done(node.name)

    def _tell_end(self, done: Done) -> None:
        data: dict[str, object] = {"node": done.job.key, "run": done.run_id, "state": done.state}
        data["seconds"] = round(done.seconds, 6)
        if done.cached_from is not None:
            data["cached_from"] = done.cached_from
        if done.error is not None:
            data["error"] = f"{done.error.type}: {done.error.message}"
        self._say("node_end", data)

    def _fail(self, done: Done) -> None:
        if done.job.node.on_failure == "stop" or done.fatal:
            self._failures.append(done)
            return
        token = current_token()
        if token is not None and token.is_set:
            return
        with suppress(RunCancelled):
            self._ctx.log_message(f"{_sentence(done)}; the pipeline goes on without it", "warning")

    def _skip(self, node: NodeSpec, reason: str) -> None:
        self._absent[node.name] = "was skipped"
        self._say("node_skipped", {"node": node.name, "reason": reason})

    def _count(self, nodes: float) -> None:
        self._ended += nodes
        self._show_count()

    def _show_count(self) -> None:
        whole = round(self._ended)
        ended = whole if abs(self._ended - whole) < 1e-6 else round(self._ended, 3)
        with suppress(RunCancelled):
            self._ctx.set_progress(ended, len(self._nodes), "nodes")

    def _say(self, event: str, data: dict[str, object]) -> None:
        """Log something; a pipeline that is told to stop first waits for its nodes, and goes on telling."""
        try:
            self._ctx.log(event, data)
        except RunCancelled:
            # Raised once, in place of what was to be said.
            self._ctx.log(event, data)

    def _result(self) -> object:
        if self._spec.output is not None:
            return resolve(self._spec.output, self._scope)
        return {name: self._scope[name] for name in last_nodes(self._needs) if name in self._scope}

    def _told(self) -> ErrorInfo:
        first = self._failures[0]
        lines = [_sentence(done) for done in self._failures]
        error = first.error
        return ErrorInfo(
            type="PipelineFailed",
            message="\n".join(lines),
            kind="action",
            traceback="" if error is None else error.traceback,
            output="" if error is None else error.output,
        )


def _sentence(done: Done) -> str:
    run = f" (run {done.run_id})" if done.run_id else ""
    why = f": {done.error.type}: {done.error.message}" if done.error else ""
    return f"node {done.job.key!r} {done.state.replace('_', ' ')}{run}{why}"


def as_info(error: SynapseError) -> ErrorInfo:
    """Describe a mistake that was found before a node's run began."""
    return ErrorInfo(type=type(error).__name__, message=str(error), kind="params")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
