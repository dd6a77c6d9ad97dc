"""The command `runs cancel`."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING

import click
import msgspec

from synapse_kernel.cli.documents import dump, promise_json, state_of
from synapse_kernel.events import FINAL_STATUSES
from synapse_kernel.owners import is_alive
from synapse_plugins.history.commands.reading import POLL_SECONDS, REAP_SECONDS
from synapse_plugins.history.commands.record_text import status_text
from synapse_plugins.history.commands.selecting import complete_runs, json_option, open_store, several_runs

if TYPE_CHECKING:
    from synapse_kernel.stores import RunRecord, RunStore

# A process that has not heard by then may be suspended, or busy in C code.
PATIENCE_SECONDS = 15.0

EPILOG = """\b
Examples:
  synapse-kernel runs cancel @last
  synapse-kernel runs cancel 3f2a 91bc --reason "the data is wrong"
  synapse-kernel runs cancel 3f2a --no-wait

The process of the run is told, and stops it as Ctrl-C would: the action cleans up within its grace period.
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
@json_option
@click.pass_context
def cancel(ctx: click.Context, runs: tuple[str, ...], reason: str, wait: bool, as_json: bool) -> int:
    """Stop RUNs, whichever process they are in, and all that is part of them."""
    if as_json:
        promise_json(state_of(ctx))
    store = open_store(ctx)
    answers = [_ask(store, record, reason) for record in several_runs(store, runs)]
    if wait:
        _wait(store, [answer for answer in answers if answer.requested])
    if as_json:
        click.echo(dump(answers))
    else:
        for answer in answers:
            click.echo(f"{answer.action} (run {answer.run_id}): {answer.text}")
    expected = {"cancelled"} if wait else {"cancelled", "pending", "running", "retrying"}
    return 0 if all(a.requested and a.status in expected for a in answers) else 1


def _ask(store: RunStore, record: RunRecord, reason: str) -> Answer:
    answer = Answer(run_id=record.run_id, action=record.action, requested=False, status=record.status)
    if record.status not in FINAL_STATUSES and store.request_cancel(record.run_id, reason):
        answer.requested = True
        answer.text = "asked to stop"
        return answer
    now = store.get(record.run_id) or record
    answer.status = now.status
    answer.text = f"has ended already: {status_text(now.status)}"
    if now.status == "crashed":
        place = f" {now.owner.pid} on {now.owner.host}" if now.owner is not None else ""
        answer.text = f"has ended already: crashed, its process{place} is dead"
    return answer


def _wait(store: RunStore, answers: list[Answer]) -> None:
    """Wait until runs that were asked to stop have ended; says so on stderr where it takes a while."""
    waiting = {answer.run_id: answer for answer in answers}
    begun = looked = monotonic()
    told = False
    while waiting:
        for run_id, answer in list(waiting.items()):
            record = store.get(run_id)
            if record is None or record.status in FINAL_STATUSES:
                del waiting[run_id]
                answer.status = record.status if record is not None else "cancelled"
                answer.text = _ended_text(answer.status)
        if not waiting:
            return
        if monotonic() - begun > PATIENCE_SECONDS and not told:
            told = True
            _tell_of_patience(store, list(waiting))
        sleep(POLL_SECONDS)
        if monotonic() - looked > REAP_SECONDS:
            store.reap()
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
