"""
The packages that a worker needs and that are no action plugin's folder: the kernel, its plugins, the action.

They are shipped as they are imported here, also from an editable install, with the metadata by which their
plugins are found there. What has compiled parts is not shipped: it must be installed on the worker. Each is
looked at once: a process does not import it anew either.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import site
import sys
import sysconfig
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from synapse_kernel.plugins import OWN_DISTRIBUTION
from synapse_plugins.ray_executors.bundles import (
    LIMIT,
    Bundle,
    Source,
    path_bundle,
    sources_of,
    text_source,
)
from synapse_plugins.ray_executors.folder_files import FolderFiles, FoundFile

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec

    from importlib_metadata import Distribution

    from synapse_kernel.contracts import Task
    from synapse_kernel.kernel import Kernel

OWN_PACKAGES = ("synapse_kernel", "synapse_plugins")
# By which an installed plugin is found, and its version told.
_METADATA = ("METADATA", "entry_points.txt")
_COMPILED = (".so", ".pyd", ".dylib", ".dll")
_EXTRA = re.compile(r"\bextra\s*==")

_made: dict[str, list[Bundle]] = {}
_lock = threading.Lock()


def code_bundles(kernel: Kernel, task: Task, *, limit: int = LIMIT) -> list[Bundle]:
    """
    Return what must be on a worker's `sys.path` for this task, the kernel's own packages first.

    Raises `UsageError` for a package that is larger than `limit` bytes when it is packed.
    """
    bundles = list(_once(OWN_DISTRIBUTION, OWN_PACKAGES, limit))
    for record in kernel.plugins:
        if record.state == "active" and record.distribution not in {None, OWN_DISTRIBUTION}:
            assert record.distribution is not None
            module = record.value.partition(":")[0].partition(".")[0]
            bundles += _once(record.distribution, (module,), limit)
    if task.ref.folder is None:
        bundles += _action_bundle(task.ref.entrypoint, bundles, limit)
    return list({bundle.digest: bundle for bundle in bundles}.values())


@functools.cache
def kernel_requirements() -> tuple[str, ...]:
    """Return what the kernel itself needs to be installed, as lines of a requirements file."""
    found = _distribution(OWN_DISTRIBUTION)
    lines = [] if found is None else found.requires or []
    return tuple(line for line in lines if not _EXTRA.search(line))


def _once(name: str, modules: tuple[str, ...], limit: int) -> list[Bundle]:
    with _lock:
        if name not in _made:
            _made[name] = _distribution_bundle(name, modules, limit)
        return _made[name]


def _distribution_bundle(name: str, modules: tuple[str, ...], limit: int) -> list[Bundle]:
    """Return the bundle of a distribution's packages and metadata; none if it has compiled parts."""
    found = _distribution(name)
    tops = dict.fromkeys(modules)
    if found is not None and name != OWN_DISTRIBUTION:
        tops |= dict.fromkeys(_top_levels(found))
    files = [pair for top in tops for pair in _files_of(top)]
    if not files or any(file.relative.endswith(_COMPILED) for _, file in files):
        return []
    sources = [source for prefix, file in files for source in sources_of([file], prefix)]
    sources += [] if found is None else _metadata(found)
    return [path_bundle(name, sources, sum(file.size for _, file in files), limit=limit)]


def _action_bundle(entrypoint: str, known: list[Bundle], limit: int) -> list[Bundle]:
    """Return the bundle of the package or module that an action is in, unless it is installed."""
    top = entrypoint.partition(":")[0].partition(".")[0]
    shipped = {source.member.partition("/")[0] for bundle in known for source in bundle.sources}
    if not top or top in shipped or f"{top}.py" in shipped or top in sys.stdlib_module_names:
        return []
    if top == "__main__" or all(_is_installed(place) for place in _places(top)):
        return []
    return _once(f"module {top}", (top,), limit)


def _distribution(name: str) -> Distribution | None:
    from importlib_metadata import Distribution, PackageNotFoundError

    try:
        found: Distribution = Distribution.from_name(name)
    except PackageNotFoundError:
        return None
    return found


def _top_levels(found: Distribution) -> Iterable[str]:
    """Yield the packages and modules that a distribution says are its own."""
    yield from (found.read_text("top_level.txt") or "").split()
    for file in found.files or ():
        first, suffix = PurePosixPath(str(file)).parts[0], PurePosixPath(str(file)).suffix
        name = first.removesuffix(".py")
        # What an editable install leaves behind is no code of the distribution.
        if suffix in {".py", *_COMPILED} and name.isidentifier() and not name.startswith("__editable__"):
            yield name


def _metadata(found: Distribution) -> list[Source]:
    folder = f"{re.sub('[-_.]+', '_', found.name)}-{found.version}.dist-info"
    texts = {name: found.read_text(name) for name in _METADATA}
    return [text_source(f"{folder}/{name}", text) for name, text in texts.items() if text is not None]


def _files_of(top: str) -> list[tuple[str, FoundFile]]:
    """Return the files of a package or module, each with the prefix it has in a bundle."""
    found: list[tuple[str, FoundFile]] = []
    for place in _places(top):
        if place.is_dir():
            # A version file that a build made is often in .gitignore, and the package needs it.
            found += [(f"{top}/", file) for file in FolderFiles(str(place), git=False).look()]
        elif place.is_file():
            status = place.stat()
            found.append(
                (
                    "",
                    FoundFile(
                        place.name, str(place), status.st_size, status.st_mtime_ns, status.st_ino, False
                    ),
                )
            )
    # A namespace package has several folders, of which the first has its say.
    return list({f"{prefix}{file.relative}": (prefix, file) for prefix, file in reversed(found)}.values())


def _places(top: str) -> list[Path]:
    """Return where a package or module lies: its folders, or its file."""
    spec = _spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def _spec(top: str) -> ModuleSpec | None:
    # As it is imported here, rather than as it would be now.
    spec: ModuleSpec | None = getattr(sys.modules.get(top), "__spec__", None)
    if spec is not None:
        return spec
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


@functools.cache
def _site_folders() -> frozenset[Path]:
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    return frozenset(Path(path).resolve() for path in (*paths, site.getusersitepackages()))


def _is_installed(place: Path) -> bool:
    return any(place.resolve().is_relative_to(folder) for folder in _site_folders())
