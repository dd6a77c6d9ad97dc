"""
The folder of a pipeline's run, and what is where in it.

::

    <root>/<run id>/
      datasets/  models/  artifacts/  logs/  checkpoints/      shared by the nodes
      nodes/train/                                             the node `train`'s own
      nodes/draw/3/                                            the node instance `draw[3]`'s own

Each is made when it is first asked for. No name leads out of the run's folder: not by ``..``, not by a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from synapse_kernel.errors import UsageError, WorkFolderError

FOLDERS = ("datasets", "models", "artifacts", "logs", "checkpoints")

_NAME = re.compile(r"[\w-]([\w.-]*[\w-])?")
_INSTANCE = re.compile(r"(?P<node>.*)\[(?P<index>[0-9]{1,9})\]", re.DOTALL)
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_MOST_BYTES = 200


class PipelineContext:
    """
    The working folder of one run of a pipeline, under `root`.

    Raises `UsageError` for an id that is no plain name; what makes a folder raises `WorkFolderError` if it
    cannot be made, and `UsageError` if a link in its place leads out of the run's folder.
    """

    def __init__(self, root: str | os.PathLike[str], run_id: str) -> None:
        _check(run_id, "a run")
        self.run_id = run_id
        self.folder = Path(root).absolute() / run_id
        """The run's folder; it need not be there yet."""
        self._made: dict[str, Path] = {}
        self._text = str(self.folder)

    @property
    def datasets(self) -> Path:
        """Where nodes put datasets."""
        return self._ready("datasets")

    @property
    def models(self) -> Path:
        """Where nodes put models."""
        return self._ready("models")

    @property
    def artifacts(self) -> Path:
        """Where nodes put what people look at: reports, pictures, exports."""
        return self._ready("artifacts")

    @property
    def logs(self) -> Path:
        """Where nodes put log files."""
        return self._ready("logs")

    @property
    def checkpoints(self) -> Path:
        """Where nodes put files to go on from."""
        return self._ready("checkpoints")

    def node_path(self, name: str) -> str:
        """
        Return the folder of a node, or a node instance such as ``draw[3]``; nothing is made.

        Raises `UsageError` if a link on the way leads out of the run's folder.
        """
        relative = _node_folder(name)
        place = self._text
        for part in ("", *relative.split("/")):
            place = f"{place}/{part}" if part else place
            # Most often nothing or a folder is there: all of the path is looked at only behind a link.
            if os.path.islink(place):  # noqa: PTH114 - asked for each node
                self._check_inside(self.folder / relative)
                break
        return f"{self._text}/{relative}"

    def node_dir(self, name: str) -> Path:
        """Make the folder of a node or a node instance and return it."""
        return self._ready(_node_folder(name))

    def names(self) -> Mapping[str, str]:
        """Return what ``${run.…}`` means: id, folder, datasets and the others; a folder is made when read."""
        return _Names(self)

    def made(self, name: str) -> Path:
        """Make the run's folder (for ``""``) or one of `FOLDERS`, and return it."""
        return self._ready(name)

    def _ready(self, relative: str) -> Path:
        found = self._made.get(relative)
        if found is None:
            path = self.folder / relative
            # Before and after: making a folder behind a link would already reach out of the run's.
            self._check_inside(path)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WorkFolderError(str(path), error.strerror or str(error)) from error
            self._check_inside(path)
            found = self._made[relative] = path
        return found

    def _check_inside(self, path: Path) -> None:
        real = os.path.realpath(path)
        own = Path(os.path.realpath(self.folder.parent), self.run_id)
        if not Path(real).is_relative_to(own):
            raise UsageError(
                f"{path} leads out of the folder of run {self.run_id}, to {real}\n"
                "  remove the link, or start a new run"
            )


class _Names(Mapping[str, str]):
    """The names behind ``${run.…}``; reading a folder's makes it."""

    def __init__(self, context: PipelineContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> str:
        if name == "id":
            return self._context.run_id
        if name == "folder":
            return str(self._context.made(""))
        if name in FOLDERS:
            return str(self._context.made(name))
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(("id", "folder", *FOLDERS))

    def __len__(self) -> int:
        return 2 + len(FOLDERS)


def _node_folder(name: str) -> str:
    instance = _INSTANCE.fullmatch(name)
    node = instance["node"] if instance else name
    _check(node, "a node", shown=name)
    return f"nodes/{node}/{int(instance['index'])}" if instance else f"nodes/{node}"


def _check(name: str, what: str, *, shown: str = "") -> None:
    """Refuse what cannot be one folder's name on every system."""
    told = f"{shown or name!r} cannot name {what}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{told}: use letters, digits, '_' and '-', and '.' between them")
    if _DEVICES.fullmatch(name):
        raise UsageError(f"{told}: Windows keeps the name for a device")
    if len(name.encode()) > _MOST_BYTES:
        raise UsageError(f"{told}: it is longer than {_MOST_BYTES} bytes")
