"""Which files a person means: URLs, names of the settings, local paths, patterns of them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click
from click.shell_completion import CompletionItem

from synapse_kernel.cli.documents import state_of
from synapse_kernel.errors import SynapseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synapse_kernel.storage.errors import StorageError
    from synapse_kernel.storage.finding import Location
    from synapse_kernel.storage.providers import Entry
    from synapse_kernel.storage.storage import Storage

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")

_NAMED = "storage://"


class Given(NamedTuple):
    """What a person typed, and where it leads."""

    text: str
    storage: Storage
    key: str
    is_pattern: bool
    """Whether it stands for what matches; a key that is there does not, whatever characters it has."""

    @property
    def ends_in_slash(self) -> bool:
        """Whether it was typed as a folder."""
        return self.text.endswith("/")

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def top(self) -> str:
        """The folder that a pattern's matches are below: what stands before the first part that matches."""
        from synapse_kernel.storage.matching import is_pattern

        parts = self.key.split("/")
        fixed = next((at for at, part in enumerate(parts) if is_pattern(part)), len(parts))
        return "/".join(parts[:fixed])

    def matches(self) -> Iterator[Entry]:
        """Yield what matches a pattern; raises `StorageNotFoundError` if nothing does."""
        from synapse_kernel.storage.errors import StorageNotFoundError

        is_empty = True
        for entry in self.storage.glob(self.key):
            is_empty = False
            yield entry
        if is_empty:
            raise StorageNotFoundError(
                "nothing matches this pattern",
                provider=self.storage.provider.name,
                operation="glob",
                key=self.key,
            )


def given(ctx: click.Context, text: str) -> Given:
    """Return where a text leads; raises what `Storages.location` raises, and for an empty one."""
    from synapse_kernel.storage.matching import is_pattern

    if not text:
        raise UsageError("'' is neither a URL nor a path; the folder you are in is .")
    found: Location = state_of(ctx).kernel.storages.location(text)
    with hints(text):
        wild = is_pattern(found.key) and not found.storage.exists(found.key)
    return Given(text, found.storage, found.key, wild)


@contextmanager
def hints(*places: Given | str) -> Iterator[None]:
    """Let an error of a storage say what to type next, to find out about the place that it is of."""
    from synapse_kernel.storage.errors import StorageConfigError, StorageError, StorageNotFoundError

    try:
        yield
    except StorageConfigError:
        # Nothing was asked of a server: what is wrong is what was typed.
        raise
    except StorageError as error:
        texts = _concerned(error, places)
        if isinstance(error, StorageNotFoundError):
            hint = f"see what is there with: synapse-kernel storage ls {_above(texts[0])}"
        else:
            tops = " ".join(text if text.endswith("/") else _above(text) for text in texts)
            hint = f"find out what works with: synapse-kernel storage check {tops}"
        raise _with_hint(error, hint) from error


def _concerned(error: StorageError, places: Sequence[Given | str]) -> list[str]:
    """Return those that the error may be of: that have its provider, all if none has."""
    found = [
        place.text
        for place in places
        if isinstance(place, Given) and place.storage.provider.name == error.provider
    ]
    return found or [place if isinstance(place, str) else place.text for place in places]


def _with_hint(error: StorageError, hint: str) -> StorageError:
    if "\n" in error.reason:
        # It says what to do already.
        return error
    return type(error)(
        f"{error.reason}\n  {hint}",
        provider=error.provider,
        operation=error.operation,
        key=error.key,
        transient=error.transient,
    )


def _above(text: str) -> str:
    """Return the folder of what was typed; a bucket or host is its own."""
    import shlex

    scheme, separator, rest = text.rstrip("/").partition("://")
    if not separator:
        return shlex.quote(scheme.rpartition("/")[0] or ("/" if scheme.startswith("/") else "."))
    authority, _, key = rest.partition("/")
    above = key.rpartition("/")[0]
    return shlex.quote(f"{scheme}://{authority}/{above}" if above else f"{scheme}://{authority}/")


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """End quietly where whoever reads what is printed (head, less) goes away: click would exit with 1."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def complete_places(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """
    Offer the settings' names and what lies in those that are on this machine; else the shell's own paths.

    No server is asked: a shell that waits for one is worse than one that offers nothing.
    """
    if incomplete and _NAMED.startswith(incomplete):
        incomplete = _NAMED
    if not incomplete.startswith(_NAMED):
        return [] if "://" in incomplete else [CompletionItem(incomplete, type="file")]
    name, slash, key = incomplete.removeprefix(_NAMED).partition("/")
    try:
        if not slash:
            known = state_of(ctx).settings.kernel.storage
            return [CompletionItem(f"{_NAMED}{each}/") for each in sorted(known) if each.startswith(name)]
        return _complete_keys(ctx, name, key)
    except SynapseError:
        return []


def _complete_keys(ctx: click.Context, name: str, key: str) -> list[CompletionItem]:
    found = state_of(ctx).kernel.storages.location(f"{_NAMED}{name}/").storage
    if not found.url.startswith("file://"):
        return []
    keys = (f"{entry.key}/" if entry.is_folder else entry.key for entry in found.list(key.rpartition("/")[0]))
    return [CompletionItem(f"{_NAMED}{name}/{each}") for each in sorted(keys) if each.startswith(key)]
