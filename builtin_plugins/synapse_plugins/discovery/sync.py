"""Writing the actions found in a folder's source into its `config.yaml`."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.config import (
    FILE_NAME,
    ActionConfig,
    as_action_config,
    config_file,
    load_config,
    normal_entrypoint,
)
from synapse_kernel.errors import ConfigError, Problem, UsageError
from synapse_kernel.files import write_whole
from synapse_plugins.discovery.static import SourceTree, Unreadable
from synapse_plugins.discovery.yaml_edit import CannotEditError, Change, block, edited

if TYPE_CHECKING:
    from synapse_kernel.config import PluginConfig
    from synapse_plugins.discovery.static import FoundAction


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What `sync_config_file` did, or would do: `added`, `filled` and `stale` map names to entrypoints.

    Stale is an action of the config that the code lacks; it is left as it is. `problems` are files that do
    not parse, and actions that cannot be written under their name.
    """

    file: str
    changed: bool
    created: bool
    added: dict[str, str]
    filled: dict[str, str]
    stale: dict[str, str | None]
    problems: list[Unreadable]
    diff: str


def sync_config_file(path: Path, *, dry_run: bool = False) -> SyncReport:
    """
    Add the actions in a folder's source to its `config.yaml`, and the entrypoints that are null there.

    A config is made where there is none and the code has actions. Nothing is written on `dry_run`, or where
    nothing changed. Raises `ConfigError` for a config that cannot be read or written.
    """
    file = _place(path)
    created = not file.exists()
    config = None if created else load_config(file)
    tree = SourceTree(file.parent)
    found = tree.result()
    change, stale, clashes = _compare(config, found.actions, tree)
    old = new = "" if created else file.read_bytes().decode("utf-8")
    if change:
        try:
            new = edited(_first_lines(file) if created else old, change)
        except CannotEditError as error:
            by_hand = [
                Problem(f"actions.{n}", f"add entrypoint: {e}") for n, e in change.entrypoints().items()
            ]
            raise ConfigError(f"{file} is written in a way that cannot be added to:", by_hand) from error
    if new != old and not dry_run:
        _write(file, new)
    names = {} if config is None else {key: action.name or key for key, action in _actions(config).items()}
    return SyncReport(
        file=str(file),
        changed=new != old,
        created=created and new != old,
        added={name: entry["entrypoint"] for name, entry in change.added.items()},
        filled={names[key]: entrypoint for key, entrypoint in change.filled.items()},
        stale=stale,
        problems=[*found.problems, *clashes],
        diff=_diff(file, old, new, created=created),
    )


def _place(path: Path) -> Path:
    file = config_file(path)
    missing = None if file.exists() else file if file.name != FILE_NAME else file.parent
    if missing is not None and not missing.exists():
        from synapse_plugins.discovery.plugin_discovery import no_such_path

        raise no_such_path(missing)
    if file.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"{path} is neither a folder nor its {FILE_NAME}")
    return file


def _actions(config: PluginConfig) -> dict[str, ActionConfig]:
    return {key: as_action_config(value) for key, value in config.actions.items()}


def _compare(
    config: PluginConfig | None, found: list[FoundAction], tree: SourceTree
) -> tuple[Change, dict[str, str | None], list[Unreadable]]:
    configured = {} if config is None else _actions(config)
    known = {tree.origin(normal_entrypoint(a.entrypoint)) for a in configured.values() if a.entrypoint}
    open_keys = {a.name or key: key for key, a in configured.items() if a.entrypoint is None}
    taken = ({a.name or key for key, a in configured.items()} | set(configured)) - set(open_keys)
    wanted = [action for action in found if action.entrypoint not in known or action.name in open_keys]
    namesakes = Counter(action.name for action in wanted)
    change = Change(added={}, filled={})
    clashes: list[Unreadable] = []
    for action in wanted:
        is_taken = action.name in taken or namesakes[action.name] > 1
        reason = _unwritable(action, is_taken=is_taken)
        if reason is not None:
            clashes.append(Unreadable(file=action.file, line=action.line, reason=reason))
        elif action.name in open_keys:
            change.filled[open_keys[action.name]] = action.entrypoint
        else:
            change.added[action.name] = _entry(action)
    stale: dict[str, str | None] = {
        action.name or key: action.entrypoint
        for key, action in configured.items()
        if action.entrypoint is not None and tree.lacks(normal_entrypoint(action.entrypoint))
    }
    return change, stale | dict.fromkeys(name for name in open_keys if name not in namesakes), clashes


def _unwritable(action: FoundAction, *, is_taken: bool) -> str | None:
    if is_taken:
        return f"another action is named {action.name!r}; give {action.entrypoint} a name of its own"
    if not all(part.isidentifier() for part in Path(action.file).with_suffix("").parts):
        return f"action {action.name!r} is in a file or folder whose name no entrypoint can hold"
    return None


def _entry(action: FoundAction) -> dict[str, str]:
    entry = {"entrypoint": action.entrypoint}
    if action.description:
        entry["description"] = action.description
    return entry


def _first_lines(file: Path) -> str:
    folder = file.parent.resolve().name or "plugin"
    return block({"name": folder, "version": "0.1.0", "category": "custom"})


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError("The config cannot be written:", [Problem(str(file), reason)]) from error


def _diff(file: Path, old: str, new: str, *, created: bool) -> str:
    before = "/dev/null" if created else str(file)
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), fromfile=before, tofile=str(file)
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
