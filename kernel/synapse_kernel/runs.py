"""
The life of a run, from its first event to its one final state.

`conduct` opens the channel, lets the hook `synapse_run` decide, and closes with the outcome; behind that
hook `attempt_all` makes the attempts: submit, wait within the time-out, retry. What comes before is in
`preparation`, the handle that a caller holds in `handles`.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel.contracts import ErrorInfo, InlineExecutor, Job, Outcome, QueuedJob, Task
from synapse_kernel.control import FORCE_SECONDS, Control, Live
from synapse_kernel.emitter import Channel, discard
from synapse_kernel.errors import HookError, RunCancelled, SynapseError
from synapse_kernel.models import check_type
from synapse_kernel.opening import RECORDER, Opened, secrets_of
from synapse_kernel.params import explain
from synapse_kernel.redaction import Redactor
from synapse_kernel.striking import InlineJob
from synapse_kernel.worker import cancelled, describe_error, interrupted

if TYPE_CHECKING:
    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import KnownResult, Send
    from synapse_kernel.events import Status
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.preparation import Prepared


def conduct(
    kernel: Kernel,
    prepared: Prepared,
    control: Control,
    opened: Opened,
    *,
    inline: bool = False,
) -> Outcome:
    """
    Run what was prepared, in this thread, and return its outcome.

    The sinks of `opened` (see `open_sinks`) have all events and are closed when this returns.
    """
    request = prepared.request
    started = datetime.now(UTC)
    channel: Channel | None = None
    if opened.sinks:
        channel = Channel(request.run_id, request.action.name, opened.sinks, opened.seq)
    secrets = opened.secrets or []
    if opened.secrets is None and (channel is not None or not prepared.executor.in_process):
        secrets = secrets_of(prepared)
    live = Live(
        prepared=prepared,
        control=control,
        channel=channel,
        opened=opened,
        inline=inline,
        secrets=secrets,
        started=started,
        over=threading.Event(),
        thread=threading.get_ident(),
        attempt=opened.attempt,
    )
    parent = kernel.live_runs.get(request.place.parent) if request.place.parent is not None else None
    kernel.live_runs[request.run_id] = live
    if parent is not None:
        live.top = parent.root
        parent.control.join(control)
    if kernel.closed:
        control.cancel("cancelled: the kernel shut down")
    outcome: Outcome | None = None
    try:
        if channel is not None:
            channel.state("pending", opened.attempt)
        known = request.place.known
        outcome = kernel.call_run(request) if known is None else _known(live, known)
    except KeyboardInterrupt:
        error = ErrorInfo(type="KeyboardInterrupt", message="the run was interrupted", kind="cancelled")
        outcome = concluded(live, "cancelled", error)
        raise
    except SynapseError as raised:
        outcome = concluded(live, "failed", describe_error(raised, "executor"))
        if isinstance(raised, HookError):
            raise
        outcome.__dict__["exception"] = raised
    finally:
        if outcome is None:
            error = ErrorInfo(type="Interrupted", message="the run was broken off", kind="cancelled")
            outcome = concluded(live, "cancelled", error)
        try:
            outcome = _end(live, outcome)
        finally:
            # Not before: a kernel that shuts down waits until the history has the end of each run.
            kernel.live_runs.pop(request.run_id, None)
            if parent is not None:
                parent.control.leave(control)
    return outcome


def _end(live: Live, outcome: Outcome) -> Outcome:
    """Tell the sinks how the run ended, and return its outcome without secrets."""
    if outcome.attempts < live.attempt:
        # By whoever concluded it without an attempt. The history takes no end of an earlier one.
        replaced = msgspec.structs.replace(outcome, attempts=live.attempt)
        replaced.__dict__.update(outcome.__dict__)
        outcome = replaced
    if not outcome.ok or outcome.warnings:
        outcome = _masked(outcome, live.secrets or secrets_of(live.prepared))
    error = outcome.error
    if live.channel is not None:
        detail = None if error is None else f"{error.type}: {error.message}"
        live.channel.state(outcome.status, outcome.attempts, detail)
        live.channel.close(outcome)
        if live.opened.recorded and live.channel.failed(RECORDER) is not None:
            outcome.__dict__["unrecorded"] = live.channel.failed(RECORDER)
    live.over.set()
    return outcome


def _masked(outcome: Outcome, secrets: list[str]) -> Outcome:
    """Take the run's secrets out of an outcome's texts; the exception itself stays as it is."""
    if not secrets:
        return outcome
    error, text = outcome.error, Redactor(secrets).text
    masked = error and msgspec.structs.replace(
        error, message=text(error.message), traceback=text(error.traceback), output=text(error.output)
    )
    replaced = msgspec.structs.replace(
        outcome, error=masked, warnings=[text(warning) for warning in outcome.warnings]
    )
    replaced.__dict__.update(outcome.__dict__)
    return replaced


def attempt_all(kernel: Kernel, live: Live) -> Outcome:
    """Run the attempts of a run: the first, and retries with exponential backoff and jitter."""
    request, first = live.prepared.request, live.opened.attempt
    if request.retries == 0:
        return _attempt(kernel, live, first)
    import tenacity

    retry = kernel.settings.kernel.retry
    stopped = threading.Event()
    live.control.token.on_set(stopped.set)
    attempts = iter(range(first, first + request.retries + 1))
    # Not wait_exponential_jitter: how it is told its first delay differs between tenacity's versions.
    backoff = tenacity.wait_exponential(retry.initial) + tenacity.wait_random(0, retry.initial)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        if live.channel is not None and state.outcome is not None and state.next_action is not None:
            error = cast("Outcome", state.outcome.result()).error
            why = Redactor(live.secrets).text(f"{error.type}: {error.message}") if error else ""
            live.channel.state(
                "retrying",
                first + state.attempt_number - 1,
                f"{why}; again in {state.next_action.sleep:.1f} s",
            )

    loop = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(request.retries + 1) | tenacity.stop_when_event_set(stopped),
        wait=lambda state: min(backoff(state), retry.maximum),
        retry=tenacity.retry_if_result(_worth_retrying),
        sleep=tenacity.sleep_using_event(stopped),
        before_sleep=before_sleep,
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return loop(lambda: _attempt(kernel, live, next(attempts)))


def concluded(live: Live, status: Status, error: ErrorInfo, attempt: int = 1) -> Outcome:
    """Make the outcome of a run that no worker could conclude."""
    request = live.prepared.request
    return Outcome(
        run_id=request.run_id,
        status=status,
        action=request.action.name,
        started=live.started,
        finished=datetime.now(UTC),
        error=error,
        attempts=attempt,
    )


def _worth_retrying(outcome: object) -> bool:
    """Tell whether another attempt may end better: not what was cancelled, nor what cannot ever fit."""
    assert isinstance(outcome, Outcome)
    if outcome.status not in {"failed", "timed_out", "crashed"}:
        return False
    return outcome.error is None or outcome.error.kind not in {"result", "params", "load"}


def _attempt(kernel: Kernel, live: Live, attempt: int) -> Outcome:
    prepared, control, channel = live.prepared, live.control, live.channel
    executor = prepared.executor
    inline = live.inline and prepared.request.timeout is None and hasattr(executor, "run")
    if control.token.is_set:
        return concluded(live, "cancelled", cancelled(control.token.told), attempt)
    task = _task(kernel, live, attempt, in_process=executor.in_process)
    live.attempt = attempt
    if channel is not None:
        if not getattr(executor, "queues", False):
            channel.state("running", attempt)
        task = msgspec.structs.replace(task, seq=channel.seq)
    if executor.in_process:
        task.__dict__.update(code=prepared.code, params_object=prepared.params)
    job: Job | None = None
    try:
        if inline:
            send = channel.deliver if channel is not None else None
            return _run_here(cast("InlineExecutor", executor), task, send, live)
        job = executor.submit(task, channel.deliver if channel is not None else discard)
        control.attach(job)
        outcome = _wait(job, live, attempt)
        return outcome if executor.in_process else _typed_result(prepared.code, outcome)
    except KeyboardInterrupt:
        control.cancel("interrupted")
        if job is not None:
            job.wait(control.grace + FORCE_SECONDS)
        raise
    except Exception as error:  # noqa: BLE001 - what an executor raises ends the attempt like any error
        return concluded(live, "failed", describe_error(error, "executor"), attempt)
    finally:
        control.attach(None)


def _run_here(executor: InlineExecutor, task: Task, send: Send | None, live: Live) -> Outcome:
    """Run a task in this thread; in any but the main one, which gets Ctrl-C, it can be stopped by force."""
    control = live.control
    if threading.current_thread() is threading.main_thread():
        return executor.run(task, send, control.token)
    started = datetime.now(UTC)
    job = InlineJob(control.token)
    outcome: Outcome | None = None
    try:
        try:
            control.attach(job)
            outcome = executor.run(task, job.sender(send), control.token)
        finally:
            job.over = True
            job.end()
    except RunCancelled:
        # The forced stop came before the action began, or when it was over. A second may be on its way: not
        # `suppress`, which is a call that it could break off.
        try:  # noqa: SIM105
            job.end()
        except RunCancelled:
            pass
        if outcome is None:
            outcome = concluded(live, "cancelled", cancelled(control.token.told), task.attempt)
    except KeyboardInterrupt:
        # Raised by the action itself: a signal reaches the main thread alone.
        outcome = interrupted(task, started)
    return outcome


def _known(live: Live, known: KnownResult) -> Outcome:
    """Conclude a run whose result is there already."""
    now = datetime.now(UTC)
    request = live.prepared.request
    return Outcome(
        run_id=request.run_id,
        status="succeeded",
        action=request.action.name,
        started=live.started,
        finished=now,
        result=known.result,
        attempts=live.opened.attempt,
    )


def _typed_result(code: ActionCode, outcome: Outcome) -> Outcome:
    """Give a result that travelled as JSON its type again; the worker has checked it."""
    if code.result_type is None or not outcome.ok or outcome.warnings:
        return outcome
    try:
        typed = check_type(code.result_type, outcome.result)
    except ValueError as error:
        text = (
            f"the result of {code.name!r} stays plain data, its JSON does not fit its model: {explain(error)}"
        )
        return msgspec.structs.replace(outcome, warnings=[text])
    return msgspec.structs.replace(outcome, result=typed)


def _wait(job: Job, live: Live, attempt: int) -> Outcome:
    """Wait for a job within its time-out; one that does not end when told to is left behind."""
    control, timeout = live.control, live.prepared.request.timeout
    if timeout is not None and isinstance(job, QueuedJob):
        job.wait_started()
    outcome = job.wait(timeout)
    if outcome is not None and not (outcome.status == "cancelled" and control.token.is_set):
        return outcome
    if outcome is None and timeout is None and not control.token.is_set:
        error = ErrorInfo(type="JobLost", message="the executor lost the job", kind="executor")
        return concluded(live, "failed", error, attempt)
    if outcome is None and not control.token.is_set:
        job.cancel(control.grace)
        run_id = live.prepared.request.run_id
        control.cancel_parts(f"cancelled: run {run_id} took longer than its {timeout:g} s")
        job.wait(control.grace + FORCE_SECONDS)
        error = ErrorInfo(
            type="RunTimedOut", message=f"the run took longer than its {timeout:g} s", kind="timeout"
        )
        return concluded(live, "timed_out", error, attempt)
    if outcome is None:
        outcome = job.wait(control.grace + FORCE_SECONDS)
    return concluded(live, "cancelled", cancelled(control.token.told), attempt)


def _task(kernel: Kernel, live: Live, attempt: int, *, in_process: bool) -> Task:
    request = live.prepared.request
    spec = request.action
    return Task(
        run_id=request.run_id,
        action=spec.name,
        ref=spec.ref,
        params=request.params,
        env=request.env,
        resources=request.resources,
        runtime_env=spec.runtime_env,
        category=spec.category,
        input_type=spec.input_type,
        output_type=spec.output_type,
        attempt=attempt,
        work_root=kernel.settings.kernel.work_dir,
        work_dir=request.place.work_dir,
        recorded=live.opened.recorded,
        checkpoint=request.checkpoint,
        job_id=request.job_id,
        settings={} if in_process else kernel.worker_settings,
        secrets=live.secrets,
    )
