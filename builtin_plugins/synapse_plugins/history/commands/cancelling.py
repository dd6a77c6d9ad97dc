"""The command `runs cancel`."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING

import click
import msgspec

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_kernel.cli.running import settings_option
from synapse_kernel.errors import SynapseError
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.owners import is_alive
from synapse_plugins.history.commands.attaching import Attendant, record_as_lost
from synapse_plugins.history.commands.reading import POLL_SECONDS, REAP_SECONDS
from synapse_plugins.history.commands.record_text import status_text
from synapse_plugins.history.commands.selecting import complete_runs, json_option, open_store, several_runs

if TYPE_CHECKING:
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import RunRecord, RunStore

# A process that has not heard by then may be suspended, or busy in C code.
PATIENCE_SECONDS = 15.0

EPILOG = """\b
Examples:
  synapse-kernel runs cancel @last
  synapse-kernel runs cancel 3f2a 91bc --reason "the data is wrong"
  synapse-kernel runs cancel 3f2a --no-wait

The process of the run is told, and stops it as Ctrl-C would: the action cleans up within its grace period. A
run that goes on elsewhere is told there. --force ends the record of one whose job is not to be found there.
The exit code is 1 if one of the runs was not cancelled: it had ended, or ended otherwise.
"""


class Answer(msgspec.Struct, kw_only=True):
    """What became of one run that was to be cancelled."""

    run_id: str
    action: str
    requested: bool
    status: str
    text: str = ""


@click.command("cancel", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@click.option("--reason", metavar="TEXT", default="cancelled", help="Why, for the record; it follows 'was'.")
@click.option("--wait/--no-wait", default=True, help="Wait until the runs have ended.")
@click.option(
    "--force", is_flag=True, help="Record as crashed what goes on elsewhere and is not found there."
)
@settings_option
@json_option
@click.pass_context
def cancel(
    ctx: click.Context, runs: tuple[str, ...], reason: str, wait: bool, force: bool, as_json: bool
) -> int:
    """Stop RUNs, whichever process they are in, and all that is part of them."""
    if as_json:
        promise_json(state_of(ctx))
    store = open_store(ctx)
    asking = Asking(state_of(ctx).kernel, store, reason, force=force)
    answers = [asking.ask(record) for record in several_runs(store, runs)]
    if wait:
        asking.wait([answer for answer in answers if answer.requested])
    if as_json:
        click.echo(dump(answers))
    else:
        for answer in answers:
            click.echo(f"{answer.action} (run {answer.run_id}): {answer.text}")
    expected = {"cancelled"} if wait else {"cancelled", "pending", "running", "retrying"}
    return 0 if all(a.requested and a.status in expected for a in answers) else 1


class Asking:
    """Asks runs to stop, through the process that has them or where they go on."""

    def __init__(self, kernel: Kernel, store: RunStore, reason: str, *, force: bool) -> None:
        self._kernel = kernel
        self._store = store
        self._reason = reason
        self._force = force
        self._attendants: dict[str, Attendant] = {}

    def ask(self, record: RunRecord) -> Answer:
        """Ask one run."""
        answer = Answer(run_id=record.run_id, action=record.action, requested=False, status=record.status)
        if record.status not in FINAL_STATUSES and self._store.request_cancel(record.run_id, self._reason):
            answer.requested = True
            answer.text = "asked to stop"
            self._reach(record, answer)
            return answer
        now = self._store.get(record.run_id) or record
        answer.status = now.status
        answer.text = f"has ended already: {status_text(now.status)}"
        if now.status == "crashed":
            place = f" {now.owner.pid} on {now.owner.host}" if now.owner is not None else ""
            answer.text = f"has ended already: crashed, its process{place} is dead"
        return answer

    def _reach(self, record: RunRecord, answer: Answer) -> None:
        """Stop a run where it goes on, unless a process looks after it; no process would hear the request."""
        attendant = self._attendants.setdefault(record.run_id, Attendant(self._kernel))
        try:
            attendant.look(record)
            attendant.cancel(self._reason)
        except SynapseError as error:
            answer.requested = False
            if self._force:
                record_as_lost(self._kernel, self._store, record.run_id, error)
                answer.status = "crashed"
                answer.text = "its job is not to be found; recorded as crashed"
            else:
                answer.text = (
                    f"goes on elsewhere and was not reached; the request stays\n{error}\n"
                    f"  if it is gone, say so with: synapse-kernel runs cancel {record.run_id} --force"
                )

    def wait(self, answers: list[Answer]) -> None:
        """Wait until runs that were asked to stop have ended; says so on stderr where it takes a while."""
        waiting = {answer.run_id: answer for answer in answers}
        begun = looked = monotonic()
        told = False
        while waiting:
            for run_id, answer in list(waiting.items()):
                record = self._store.get(run_id)
                if record is None or record.status in FINAL_STATUSES:
                    del waiting[run_id]
                    answer.status = record.status if record is not None else "cancelled"
                    answer.text = _ended_text(answer.status)
                elif record.detached:
                    # Whoever looked after it has ended.
                    self._reach(record, answer)
                    if not answer.requested:
                        del waiting[run_id]
            if not waiting:
                return
            if monotonic() - begun > PATIENCE_SECONDS and not told:
                told = True
                _tell_of_patience(self._store, list(waiting))
            sleep(POLL_SECONDS)
            if monotonic() - looked > REAP_SECONDS:
                self._store.reap()
                looked = monotonic()


def _ended_text(status: str) -> str:
    if status == "cancelled":
        return "cancelled"
    if status == "crashed":
        return "crashed before it could be cancelled"
    return f"ended before it could be cancelled: {status_text(status)}"


def _tell_of_patience(store: RunStore, run_ids: list[str]) -> None:
    for run_id in run_ids:
        record = store.get(run_id)
        if record is None or record.owner is None:
            continue
        alive = {True: "alive", None: "not to be seen from here"}.get(is_alive(record.owner), "dead")
        click.echo(
            f"Still waiting for run {run_id}: process {record.owner.pid} on {record.owner.host} is {alive}\n"
            "  Ctrl-C ends the waiting; the request stays",
            err=True,
        )
