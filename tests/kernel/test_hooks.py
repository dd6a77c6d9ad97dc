"""Deciding hooks, wrappers around a run, and observers."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

import msgspec
import pytest

from synapse_kernel import (
    ActionPlugin,
    HookError,
    Kernel,
    Outcome,
    RunRequest,
    State,
    TargetNotFoundError,
    UnknownNameError,
    UsageError,
    action,
    hookimpl,
)
from synapse_kernel.plugins import PluginWarning
from synapse_kernel.testing import RecordedSink

calls: list[object] = []


@action
def count(params: dict[str, object], ctx: object) -> int:
    """Count how often it ran."""
    calls.append(params)
    return len(calls)


@action
def fail_twice(params: dict[str, object], ctx: object) -> str:
    """Fail at the first two calls."""
    calls.append(params)
    if len(calls) < 3:
        raise OSError(f"call {len(calls)}")
    return "done"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


def test_the_first_answer_of_choose_executor_counts(kernel: Kernel):
    seen: list[Mapping[str, str]] = []

    class Policy:
        @hookimpl
        def synapse_choose_executor(self, request: RunRequest, available: Mapping[str, str]) -> str | None:
            seen.append(dict(available))
            return "process" if request.params.get("big") else None

    kernel.register(Policy())

    assert "process" == kernel.plan(count, params={"big": True}).executor
    assert "local" == kernel.plan(count).executor
    assert {"local": "available", "process": "available"} == {
        name: state for name, state in seen[0].items() if name in {"local", "process"}
    }


def test_a_policy_that_raises_is_a_hook_error_that_names_plugin_and_hook(kernel: Kernel):
    class Policy:
        @hookimpl
        def synapse_choose_executor(self) -> str:
            raise LookupError("no quota")

    kernel.register(Policy(), name="quota")

    with pytest.raises(HookError) as caught:
        kernel.run(count)

    assert "Plugin quota failed in synapse_choose_executor: LookupError: no quota" == str(caught.value)
    assert ("quota", "synapse_choose_executor") == (caught.value.plugin, caught.value.hook)
    assert isinstance(caught.value.__cause__, LookupError)
    assert [] == calls


def test_a_policy_that_names_an_unknown_executor_says_what_exists(kernel: Kernel):
    class Policy:
        @hookimpl
        def synapse_choose_executor(self) -> str:
            return "proces"

    kernel.register(Policy())

    with pytest.raises(UnknownNameError) as caught:
        kernel.run(count)

    first = str(caught.value).splitlines()[0]
    assert "Executor 'proces' is not registered; did you mean 'process'?" == first


def test_discover_that_raises_is_a_hook_error_and_a_synapse_error_passes_as_it_is(kernel: Kernel):
    class Discover:
        @hookimpl
        def synapse_discover(self, target: str) -> ActionPlugin | None:
            if target == "git://gone":
                raise TargetNotFoundError("There is no git://gone", target=target)
            if target == "git://broken":
                raise ConnectionError("reset")
            return None

    kernel.register(Discover(), name="git")

    with pytest.raises(HookError) as caught:
        kernel.discover("git://broken")
    assert "Plugin git failed in synapse_discover: ConnectionError: reset" == str(caught.value)
    with pytest.raises(TargetNotFoundError) as gone:
        kernel.discover("git://gone")
    assert "There is no git://gone" == str(gone.value)


def test_a_wrapper_sees_the_request_and_the_outcome(kernel: Kernel):
    traced: list[tuple[str, str, str]] = []

    class Trace:
        @hookimpl(wrapper=True)
        def synapse_run(self, request: RunRequest) -> Generator[None, Outcome, Outcome]:
            outcome = yield
            traced.append((request.run_id, request.action.name, outcome.status))
            return outcome

    kernel.register(Trace())

    outcome = kernel.run(count)

    assert [(outcome.run_id, "count", "succeeded")] == traced


def test_a_plugin_can_answer_from_a_cache_so_that_nothing_runs(kernel: Kernel):
    class Cache:
        def __init__(self) -> None:
            self.kept: dict[str, Outcome] = {}

        @hookimpl(tryfirst=True)
        def synapse_run(self, request: RunRequest) -> Outcome | None:
            kept = self.kept.get(repr(request.params))
            return kept and msgspec.structs.replace(kept, run_id=request.run_id)

        @hookimpl(wrapper=True, specname="synapse_run")
        def keep(self, request: RunRequest) -> Generator[None, Outcome, Outcome]:
            outcome = yield
            self.kept[repr(request.params)] = outcome
            return outcome

    kernel.register(Cache())
    sink = RecordedSink()

    results = [kernel.run(count, params={"x": x}, sinks=[sink]).result for x in (1, 1, 2)]

    assert [1, 1, 2] == results
    assert [{"x": 1}, {"x": 2}] == calls
    assert ["pending", "succeeded"] == sink.states[3:5]


def test_a_wrapper_can_run_it_again(kernel: Kernel):
    class Retry:
        busy = False

        @hookimpl(wrapper=True)
        def synapse_run(self, request: RunRequest) -> Generator[None, Outcome, Outcome]:
            outcome = yield
            if self.busy:
                return outcome
            self.busy = True
            while not outcome.ok:
                outcome = kernel.call_run(request)
            return outcome

    kernel.register(Retry())
    sink = RecordedSink()

    outcome = kernel.run(fail_twice, sinks=[sink])

    assert ("succeeded", "done", 3) == (outcome.status, outcome.result, len(calls))
    assert ["pending", "running", "running", "running", "succeeded"] == sink.states


@pytest.mark.parametrize("after", [False, True], ids=["before-the-run", "after-the-run"])
def test_a_wrapper_that_raises_is_a_hook_error_and_the_run_ends_failed(kernel: Kernel, after: bool):
    class Lock:
        @hookimpl(wrapper=True)
        def synapse_run(self, request: RunRequest) -> Generator[None, Outcome, Outcome]:
            if not after:
                raise BlockingIOError("locked")
            yield
            raise BlockingIOError("locked")

    kernel.register(Lock(), name="lock")
    sink = RecordedSink()

    with pytest.raises(HookError) as caught:
        kernel.run(count, sinks=[sink])

    assert "Plugin lock failed in synapse_run: BlockingIOError: locked" == str(caught.value)
    assert [*(["pending", "running"] if after else ["pending"]), "failed"] == sink.states
    (outcome,) = sink.outcomes
    assert outcome.error is not None
    assert ("failed", "HookError", "executor") == (outcome.status, outcome.error.type, outcome.error.kind)
    assert {} == kernel.live_runs


def test_a_wrapper_that_returns_no_outcome_is_named(kernel: Kernel):
    class Forgetful:
        @hookimpl(wrapper=True)
        def synapse_run(self, request: RunRequest) -> Generator[None, Outcome, None]:
            yield

    kernel.register(Forgetful())
    sink = RecordedSink()

    with pytest.raises(HookError) as caught:
        kernel.run(count, sinks=[sink])

    assert "Plugin Forgetful failed in synapse_run: TypeError: None is no Outcome" == str(caught.value)
    assert ["pending", "running", "failed"] == sink.states


def test_a_submitted_run_raises_the_hook_error_where_its_outcome_is_asked_for(kernel: Kernel):
    class Lock:
        @hookimpl(tryfirst=True)
        def synapse_run(self) -> Outcome:
            raise BlockingIOError("locked")

    kernel.register(Lock(), name="lock")

    run = kernel.submit(count)

    with pytest.raises(HookError, match="Plugin lock failed in synapse_run: BlockingIOError: locked"):
        run.result(60)
    assert "failed" == run.status
    assert ["pending", "failed"] == [e.state for e in run.events() if isinstance(e, State)]


def test_shutdown_calls_each_plugin_once_the_last_registered_first():
    order: list[str] = []

    class Plugin:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def synapse_shutdown(self, kernel: Kernel) -> None:
            order.append(self.name)

    kernel = Kernel(entry_points=[])
    for name in ("a", "b", "c"):
        kernel.register(Plugin(name), name=name)

    kernel.shutdown()
    kernel.shutdown()

    assert ["c", "b", "a"] == order


@pytest.mark.parametrize("error", [OSError("busy"), SystemExit("busy")])
def test_a_plugin_that_raises_in_shutdown_hinders_no_other(error: BaseException):
    order: list[str] = []

    class Good:
        @hookimpl
        def synapse_shutdown(self) -> None:
            order.append("good")

    class Bad:
        @hookimpl
        def synapse_shutdown(self) -> None:
            raise error

    kernel = Kernel(entry_points=[], plugins=[Good(), Bad()])

    with pytest.warns(PluginWarning) as warned:
        kernel.shutdown()

    assert ["good"] == order
    assert [f"Plugin Bad failed in synapse_shutdown: {type(error).__name__}: busy"] == [
        str(w.message) for w in warned
    ]


def test_detect_format_asks_every_plugin_and_two_claims_are_an_error_naming_both(tmp_path: Path):
    def detector(answer: str | None) -> object:
        class Detector:
            @hookimpl
            def synapse_detect_format(self, path: Path) -> str | None:
                assert path == tmp_path
                if answer == "raise":
                    raise OSError("unreadable")
                return answer

        return Detector()

    kernel = Kernel(entry_points=[])
    for number, answer in enumerate(["coco", None, "raise", "coco"]):
        kernel.register(detector(answer), name=f"detector-{number}")

    with pytest.warns(PluginWarning) as warned:
        assert "coco" == kernel.detect_format(tmp_path)

    kernel.register(detector("yolo"), name="detector-4")
    with pytest.warns(PluginWarning), pytest.raises(UsageError) as raised:
        kernel.detect_format(tmp_path)
    assert f"{tmp_path} looks like coco (by detector-0) and yolo (by detector-4); name the format" == str(
        raised.value
    )
    assert ["Plugin detector-2 failed in synapse_detect_format: OSError: unreadable"] == [
        str(w.message) for w in warned
    ]


def test_hook_names_lists_who_implements_each_hook_the_first_called_first(kernel: Kernel):
    class Policy:
        @hookimpl
        def synapse_choose_executor(self) -> None: ...

    kernel.register(Policy(), name="late")
    kernel.register(Policy(), name="later")

    names = kernel.hook_names()

    assert ["later", "late"] == names["synapse_choose_executor"]
    assert [] == names["synapse_run"]
