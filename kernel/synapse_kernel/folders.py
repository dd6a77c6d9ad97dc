"""
Imports of action-plugin folders, each in a namespace of its own.

Many plugins call their package ``plugin``. Two of them must run side by side in one process, each with its
own code, and no folder may need an entry on `sys.path`. So a folder's modules live under one private
package, named after the folder::

    synapse_kernel.folders./srv/a.plugin.train     (the file /srv/a/plugin/train.py)

and each gets an ``__import__`` of its own that looks into the folder first: ``from plugin.data import x``
means the folder's own file, also inside functions, in every thread. A name of the standard library always
means the standard library, and a mere directory (``datasets/`` full of images) hides no installed package.
A folder that is itself a package (``__init__.py`` in it) runs that first, and may call itself by its name.

The folder's path can be read back from the module's name. A process that unpickles one of its objects
(a data loader's worker, say) therefore finds the code by importing it, with no set-up.

What an import through `importlib.import_module` with an absolute name finds is not changed: use a relative
name with ``package=__package__`` there.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import sys
import threading
import time
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "synapse_kernel.folders."
# Makes this module importable as a package, which is what lets an unpickling process find the rest.
__path__: list[str] = []

# Whatever lies in a folder, its code means these when it names them.
_NEVER_OWN = sys.stdlib_module_names | {"__main__", "synapse_kernel", "synapse_plugins"}
# Python matches bytecode to its source by the second: a file this young may change again unseen.
_SETTLED_SECONDS = 2.0

_real_import = builtins.__import__
_known: dict[str, _Folder] = {}
# By the path that was given: to resolve one costs more than all the rest of a load.
_asked: dict[str | Path, _Folder] = {}


def package_of(folder: str | Path) -> str:
    """Return the name of the private package that stands for a folder."""
    path = str(Path(folder).resolve())
    return PREFIX + quote(path, safe="/-_~ ", errors="surrogateescape").replace(".", "%2E")


def split(name: str) -> tuple[str, str] | None:
    """Return the folder and the module in it that a private module name stands for; None for another."""
    if not name.startswith(PREFIX):
        return None
    folder, _, module = name.removeprefix(PREFIX).partition(".")
    return unquote(folder, errors="surrogateescape"), module or "__init__"


def load(folder: str | Path, module: str) -> ModuleType:
    """
    Import a module of a folder, anew if a file it was made of has changed since.

    Raises what the module raises, and `ModuleNotFoundError` if it is not there.
    """
    known = _asked.get(folder)
    if known is None:
        known = _asked[folder] = _folder(package_of(folder))
    with known.lock:
        if not known.is_fresh():
            known.forget()
        loaded = known.loaded.get(module)
        if loaded is not None:
            return loaded
        name = known.name_of(module)
        if name not in sys.modules:
            known.look_again()
        try:
            loaded = known.loaded[module] = importlib.import_module(name)
        except ModuleNotFoundError as error:
            known.shorten(error)
            raise
    return loaded


def forget(folder: str | Path) -> None:
    """Drop the modules of a folder, so that the next `load` reads its files again."""
    known = _folder(package_of(folder))
    with known.lock:
        known.forget()


def beside(folder: str | Path, module: str) -> list[str]:
    """Return the names of the modules that lie where a module of a folder would, for suggestions."""
    *packages, _ = module.split(".")
    place = Path(folder).joinpath(*packages)
    names = {p.stem for p in place.glob("*.py")} | {p.parent.name for p in place.glob("*/*.py")}
    return sorted(names - {"__init__"})


def files_of(folder: str | Path) -> list[str]:
    """Return the files of a folder that were imported, for tests and messages."""
    return sorted(_folder(package_of(folder)).stamps)


class _Folder:
    """What is known of one folder: the files that its modules came from, and which names are its own."""

    def __init__(self, package: str) -> None:
        found = split(package)
        assert found is not None
        self.package = package
        self.path = found[0]
        self.lock = threading.RLock()
        self.stamps: dict[str, tuple[int, int, int]] = {}
        self.loaded: dict[str, ModuleType] = {}
        """What `load` gave out, by the name it was asked for."""
        # The private name behind the first part of an absolute one; None where that is not the folder's.
        self.owned: dict[str, str | None] = {}

    def is_fresh(self) -> bool:
        """Tell whether the files are as they were when they were imported."""
        try:
            # A copy: imports inside functions add to it from other threads.
            return all(_stamp(path) == stamp for path, stamp in self.stamps.copy().items())
        except OSError:
            return False

    def forget(self) -> None:
        """Drop the modules; put off while another thread imports one, which must not vanish under it."""
        names = [n for n in list(sys.modules) if n == self.package or n.startswith(f"{self.package}.")]
        if any(getattr(getattr(sys.modules.get(n), "__spec__", None), "_initializing", False) for n in names):
            return
        self.stamps.clear()
        self.loaded.clear()
        self.owned.clear()
        for name in names:
            sys.modules.pop(name, None)

    def look_again(self) -> None:
        """Drop the import system's listings of the folder, which miss a file written a moment ago."""
        inside = self.path.rstrip(os.sep) + os.sep
        for path in list(sys.path_importer_cache):
            if path == self.path or path.startswith(inside):
                sys.path_importer_cache.pop(path, None)

    def name_of(self, module: str) -> str:
        """Return the private name of a module that an entrypoint names."""
        if module == "__init__":
            return self.package
        own = self._own_name()
        if own is not None and f"{module}.".startswith(f"{own}.") and not self._holds(own):
            return f"{self.package}{module.removeprefix(own)}"
        return f"{self.package}.{module}"

    def import_(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the names of what it stands for
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for ``__import__`` in the folder's modules."""
        top, dot, rest = name.partition(".")
        try:
            private = None if level else self._private(top)
            if private is None:
                return _real_import(name, globals, locals, fromlist or (), level)
            found = _real_import(f"{private}{dot}{rest}", globals, locals, fromlist or (), 0)
            return found if fromlist else sys.modules[private]
        except ModuleNotFoundError as error:
            # It may be there the next time: a file that was forgotten, a package installed meanwhile.
            self.owned.pop(top, None)
            self.shorten(error)
            raise

    def shorten(self, error: ModuleNotFoundError) -> None:
        """Let an error name a module of the folder as the folder's code does."""
        inside = f"{self.package}."
        if error.name is not None and error.name.startswith(inside):
            error.name = error.name.removeprefix(inside)
            error.msg = error.msg.replace(inside, "")
            error.args = (error.msg,)

    def _private(self, top: str) -> str | None:
        try:
            return self.owned[top]
        except KeyError:
            self.owned[top] = private = self._find(top)
            return private

    def _find(self, top: str) -> str | None:
        if top in _NEVER_OWN:
            return None
        if self._holds(top):
            return f"{self.package}.{top}"
        if top == self._own_name():
            installed = _installed(top)
            init = str(Path(self.path, "__init__.py"))
            if installed is None or installed.origin is None or os.path.realpath(installed.origin) == init:
                return self.package
        return None

    def _holds(self, top: str) -> bool:
        spec = PathFinder.find_spec(top, [self.path])
        if spec is None:
            return False
        if spec.origin is not None:
            return True
        # A directory without __init__.py: the folder's, unless a real package of that name is installed.
        installed = _installed(top)
        return installed is None or installed.origin is None

    def _own_name(self) -> str | None:
        path = Path(self.path)
        return path.name if (path / "__init__.py").is_file() else None


def _folder(package: str) -> _Folder:
    return _known.get(package) or _known.setdefault(package, _Folder(package))


def _package_part(name: str) -> str:
    """Return the folder's package of a module's name: no folder's own part holds a dot."""
    return PREFIX + name.removeprefix(PREFIX).partition(".")[0]


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116 - on the way of every run
    return status.st_mtime_ns, status.st_size, status.st_ino


def _installed(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


class _OwnImports:
    """Gives a module of a folder the folder's ``__import__``."""

    path: str

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        # Here rather than in exec_module, whose frame would stand in every traceback.
        folder = _folder(_package_part(spec.name))
        # Before the file is read: a change in between shows as one.
        folder.stamps[self.path] = _stamp(self.path)
        module = ModuleType(spec.name)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": folder.import_}
        return module


class _SourceLoader(_OwnImports, SourceFileLoader):  # type: ignore[misc]
    def path_stats(self, path: str) -> Mapping[str, float]:
        stats = super().path_stats(path)
        if time.time() - stats["mtime"] < _SETTLED_SECONDS:
            raise OSError(f"{path} is too young for bytecode")  # read from source, and no bytecode kept
        return stats


class _BytecodeLoader(_OwnImports, SourcelessFileLoader):
    """For a folder that is shipped without its sources."""


class _FolderFinder:
    """Finds ``synapse_kernel.folders.<folder>`` and what lies in it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        package = _package_part(name)
        if name == package:
            return _folder_spec(_folder(package))
        found = PathFinder.find_spec(name, path, target)
        if found is None:
            return None
        if isinstance(found.loader, SourceFileLoader):
            found.loader = _SourceLoader(name, found.loader.path)
        elif isinstance(found.loader, SourcelessFileLoader):
            found.loader = _BytecodeLoader(name, found.loader.path)
        return found


def _folder_spec(folder: _Folder) -> ModuleSpec | None:
    path = Path(folder.path)
    if not path.is_dir():
        return None
    init = path / "__init__.py"
    if init.is_file():
        return importlib.util.spec_from_file_location(
            folder.package,
            init,
            loader=_SourceLoader(folder.package, str(init)),
            submodule_search_locations=[folder.path],
        )
    spec = ModuleSpec(folder.package, None, is_package=True)
    spec.submodule_search_locations = [folder.path]
    return spec


sys.meta_path.insert(0, _FolderFinder)
