"""Which runs a command is about: ids, beginnings of them, and the words for the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click
from click.shell_completion import CompletionItem

from synapse_kernel.cli.documents import state_of, tell_warning
from synapse_kernel.cli.selecting import NEWEST, ago_text, one_run
from synapse_kernel.errors import Problem, ProblemsError, SynapseError, UsageError
from synapse_kernel.events import Status
from synapse_kernel.stores import RunNotFoundError, RunQuery, StoreError
from synapse_plugins.history.commands.disk_space import is_disk_full
from synapse_plugins.history.commands.record_text import status_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse_kernel.stores import RunRecord, RunStore

    Choice = click.Choice[str]
else:
    # Before click 8.2 it takes no type.
    Choice = click.Choice

STATUSES: tuple[str, ...] = get_args(Status)


class States(Choice):
    """Takes states by their name, and as they are shown: ``timed_out`` and ``timed out``."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the state's name."""
        return super().convert(value.replace(" ", "_"), param, ctx)


states_option = click.option(
    "--state", "states", multiple=True, type=States(STATUSES), metavar="STATE",
    help="Only runs in this state, such as failed. Repeatable.",
)  # fmt: skip
actions_option = click.option(
    "--action", "actions", multiple=True, metavar="NAME", help="Only runs of this action. Repeatable."
)
tags_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag. Repeatable."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def open_store(ctx: click.Context) -> RunStore:
    """
    Return the store of this command, where the runs of dead processes read as crashed from now on.

    On a full disk that cannot be written; the runs can be read all the same. Raises `UsageError` where runs
    are not recorded.
    """
    store = state_of(ctx).kernel.store
    if store is None:
        raise UsageError(
            "Runs are not recorded: the history is off\n"
            "  turn it on with the setting  store: auto  or the variable SYNAPSE_STORE=auto"
        )
    try:
        store.reap()
    except StoreError as error:
        if not is_disk_full(error):
            raise
        tell_warning(f"{error}\n  runs whose process is dead may read as running meanwhile")
    return store


def several_runs(store: RunStore, given: Sequence[str]) -> list[RunRecord]:
    """Return the runs that a person means, each once; all that is wrong is raised together."""
    records: dict[str, RunRecord] = {}
    wrong: dict[str, SynapseError] = {}
    for name in given:
        try:
            record = one_run(store, name)
        except (RunNotFoundError, UsageError) as error:
            wrong[name] = error
        else:
            records[record.run_id] = record
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        problems = [Problem("", str(error).replace("\n", "\n  ")) for error in wrong.values()]
        raise ProblemsError(f"{len(wrong)} of the runs cannot be told:", problems)
    return list(records.values())


def complete_runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the newest runs, each with its action and state, and the words that stand for one."""
    try:
        store = state_of(ctx).kernel.store
        if store is None:
            return []
        if incomplete:
            found = [store.get(run_id) for run_id in store.matching(incomplete, 50)]
        else:
            found = [*store.runs(RunQuery(roots_only=True, limit=50))]
    except SynapseError:
        return []
    words = [CompletionItem(word) for word in NEWEST if word.startswith(incomplete)]
    ids = [
        CompletionItem(r.run_id, help=f"{r.action} {status_text(r.status)}, {ago_text(r.created)}")
        for r in found
        if r is not None
    ]
    return [*words, *ids]
