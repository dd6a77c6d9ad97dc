"""
What makes code available on a worker, before any of it can be imported.

This module is shipped as its source, and executed once a process: it imports the standard library alone, and
nothing of the kernel. It keeps bundles by their digest in a private folder of the worker's machine, where
all processes of the user share them, and removes those that no process has used for a week.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

UNUSED_SECONDS = 7 * 24 * 3600.0
# How often what is used is touched: the system's own clearing of its temporary folder spares it then.
_TOUCH_SECONDS = 24 * 3600.0
_ABANDONED_SECONDS = 24 * 3600.0
_LIST = ".synapse-bundle"
_OUTPUT_LINES = 15
# These are imported all over a worker that has them: two versions in one process would not do.
_NOT_REPLACED = ("synapse_kernel", "synapse_plugins")

_in_use: dict[str, IO[str]] = {}
_lock = threading.RLock()
# Where what is in use is, by the temporary folder and its digest.
_places: dict[tuple[str, str], str] = {}


class BootstrapError(Exception):
    """The code of a run cannot be made available on this worker."""


def code_root() -> str:
    """Return the folder for code on this machine; see `private_folder`."""
    return private_folder("code")


def private_folder(name: str) -> str:
    """
    Return a folder of this user's alone on this machine, made if it is not there.

    Raises `BootstrapError` if somebody else could have put something into it.
    """
    root = Path(tempfile.gettempdir(), f"synapse-kernel-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BootstrapError(
            f"{root} is not a folder that only user {os.getuid()} can write\n"
            f"  remove it, or give the workers another TMPDIR"
        )
    folder = root / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


def has(digest: str) -> bool:
    """Tell whether a bundle is here, whole, and hold on to it until this process ends."""
    # On the way of every attempt: to look at the folders above as well costs several times as much.
    known = _places.get((tempfile.gettempdir(), digest))
    if known is not None and os.path.exists(f"{known}/{_LIST}"):  # noqa: PTH110
        return True
    place = _place(digest)
    if not _use(place):
        return False
    _places[tempfile.gettempdir(), digest] = str(place)
    return True


def path_of(digest: str) -> str:
    """Return where a bundle is, or would be, unpacked."""
    return _places.get((tempfile.gettempdir(), digest)) or str(_place(digest))


def unpack(digest: str, data: bytes) -> str:
    """
    Unpack a bundle's zip unless it is here, and return its folder; it appears whole or not at all.

    Raises `BootstrapError` for a zip that reaches out of its folder.
    """
    place = _place(digest)
    if _use(place):
        return str(place)
    remove_unused()
    with _made_beside(place) as made:
        names = _extract(data, made)
        (made / _LIST).write_text(json.dumps(names))
    return str(place)


def add_paths(paths: Sequence[str]) -> str:
    """
    Put folders with packages first on `sys.path`, in this order; what they hold is imported from there.

    Packages of another bundle that they replace are forgotten. Where this process has already imported a
    kernel that is not the same, it stays; the text that is returned says so, and is empty otherwise.
    """
    told = []
    with _lock:
        for path in reversed(paths):
            if path in sys.path:
                continue
            warning = _other_kernel(path)
            if warning is None:
                _forget_replaced(path)
                sys.path.insert(0, path)
            else:
                told.append(warning)
        importlib.invalidate_caches()
    return "\n".join(reversed(told))


def install_wheels(paths: Sequence[str], options: Sequence[str], manager: str) -> str:
    """
    Install wheels and what they need and this interpreter lacks, and return the folder for `add_paths`.

    What was installed once for the same wheels, options and interpreter is used again. Raises
    `BootstrapError`, which ends with the installer's last lines.
    """
    names = [Path(path).name for path in paths]
    contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    told = f"The wheels {', '.join(names)} cannot be installed"
    return _install([str(path) for path in paths], [*names, *contents], options, manager, told)


def install_missing(requirements: Sequence[str], options: Sequence[str], manager: str) -> str:
    """
    Install those requirements whose distribution is not here at all, and return their folder, or ``""``.

    Raises `BootstrapError`, which ends with the installer's last lines.
    """
    missing = [line for line in requirements if not _is_here(line)]
    if not missing:
        return ""
    told = f"What the kernel needs and this worker lacks ({', '.join(missing)}) cannot be installed"
    return _install(missing, missing, options, manager, told)


def remove_unused(seconds: float = UNUSED_SECONDS) -> None:
    """Remove what no process has used for some time, and what a killed one left half made."""
    now = time.time()
    for place in Path(code_root()).iterdir():
        with contextlib.suppress(OSError):
            age = now - place.stat().st_mtime
            if place.name.startswith("."):
                if age > _ABANDONED_SECONDS:
                    shutil.rmtree(place, ignore_errors=True)
            elif age > seconds:
                _remove(place)


def _place(digest: str) -> Path:
    if not re.fullmatch(r"[0-9a-z-]+", digest):
        raise BootstrapError(f"{digest!r} is not the digest of a bundle")
    return Path(code_root(), digest)


def _use(place: Path) -> bool:
    """Hold a folder until this process ends, and touch it; False if it is not here, or not whole."""
    with _lock:
        if str(place) in _in_use:
            if (place / _LIST).exists():
                return True
            _in_use.pop(str(place)).close()
        try:
            held = (place / _LIST).open("r+")
        except FileNotFoundError:
            return False
        try:
            # Kept open: who wants to remove the folder asks for this lock.
            fcntl.flock(held, fcntl.LOCK_SH)
            same = os.path.samestat(os.fstat(held.fileno()), (place / _LIST).stat())
            if not same or not _touch(place, json.load(held)):
                held.close()
                return False
        except (OSError, ValueError):
            held.close()
            return False
        _in_use[str(place)] = held
        return True


def _touch(place: Path, names: list[str]) -> bool:
    """Say that a folder is in use; False, and it is gone, if some of its files are."""
    if time.time() - place.stat().st_mtime > _TOUCH_SECONDS:
        try:
            for name in names:
                os.utime(place / name)
        except FileNotFoundError:
            shutil.rmtree(place, ignore_errors=True)
            return False
    os.utime(place)
    return True


def _remove(place: Path) -> None:
    with (place / _LIST).open("r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        # Out of sight at once: nobody finds half of it.
        away = place.with_name(f".{place.name}.{os.getpid()}.{time.monotonic_ns()}")
        place.rename(away)
    shutil.rmtree(away, ignore_errors=True)


@contextlib.contextmanager
def _made_beside(place: Path) -> Iterator[Path]:
    """Give a folder to fill, which then takes its place; another process may be first, and is as good."""
    made = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        yield made
        for _ in range(3):
            with contextlib.suppress(OSError):
                made.rename(place)
            if _use(place):
                return
            # Something is there that is not whole.
            shutil.rmtree(place, ignore_errors=True)
        raise BootstrapError(f"{place} cannot be made")
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _extract(data: bytes, folder: Path) -> list[str]:
    names = []
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        for info in packed.infolist():
            parts = info.filename.rstrip("/").split("/")
            if not all(parts) or {".", ".."} & set(parts) or "\\" in info.filename:
                raise BootstrapError(f"the bundle holds {info.filename!r}, which is no place inside of it")
            target = folder.joinpath(*parts)
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(info) as source, target.open("xb") as written:
                shutil.copyfileobj(source, written)
            target.chmod(0o755 if info.external_attr >> 16 & 0o111 else 0o644)
            names.append(info.filename)
    return names


def _other_kernel(path: str) -> str | None:
    """Return a warning if this process has a kernel that is not the one in this folder."""
    for name in _NOT_REPLACED:
        imported = getattr(sys.modules.get(name), "__file__", None)
        theirs = Path(path, name)
        if not imported or not theirs.is_dir() or _same_code(Path(imported).parent, theirs):
            continue
        return (
            f"this worker had already imported {name} {_version_beside(Path(imported).parent)} from "
            f"{Path(imported).parent} when the run came with {_version_beside(theirs)}, and uses its own"
        )
    return None


def _same_code(here: Path, there: Path) -> bool:
    if here == there:
        return True
    mine, yours = ({str(f.relative_to(p)): f for f in p.rglob("*.py")} for p in (here, there))
    return mine.keys() == yours.keys() and all(
        file.read_bytes() == yours[name].read_bytes() for name, file in mine.items()
    )


def _version_beside(package: Path) -> str:
    """Return the version that a kernel says it has, read without importing it."""
    try:
        found = re.search(r"""__version__\s*=\s*["']([^"']+)""", (package / "_version.py").read_text())
    except OSError:
        found = None
    return f"{found[1]}" if found else "of an unknown version"


def _forget_replaced(path: str) -> None:
    """Drop the modules and paths of other bundles that hold packages of the same names."""
    root = code_root() + os.sep
    for entry in Path(path).iterdir():
        name = entry.name.removesuffix(".py")
        if name in _NOT_REPLACED or not name.isidentifier():
            continue
        spec: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
        locations = list(spec.submodule_search_locations or [spec.origin or ""]) if spec else []
        for location in (str(location) for location in locations):
            if location.startswith(root):
                for module in [m for m in list(sys.modules) if m == name or m.startswith(f"{name}.")]:
                    del sys.modules[module]
                sys.path[:] = [p for p in sys.path if p != str(Path(location).parent)]


def _is_here(requirement: str) -> bool:
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    try:
        return name is not None and bool(version(name[0]))
    except PackageNotFoundError:
        return False


def _install(wanted: list[str], content: list[str], options: Sequence[str], manager: str, told: str) -> str:
    key = json.dumps([content, list(options), manager, sys.prefix, sys.version])
    place = _place(f"wheels-{hashlib.sha256(key.encode()).hexdigest()[:32]}")
    if _use(place):
        return str(place)
    remove_unused()
    with _made_beside(place) as made:
        lacking = _lacking(manager, wanted, options, told)
        if lacking:
            _run(manager, ["--target", str(made), "--no-deps", *options, *lacking], told)
        files = [str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()]
        (made / _LIST).write_text(json.dumps([name for name in files if not name.endswith(".pyc")]))
    return str(place)


def _lacking(manager: str, wanted: list[str], options: Sequence[str], told: str) -> list[str]:
    """
    Return what must be installed so that all of `wanted` is there; the wheels among it in any case.

    Installing to a folder of its own, both installers would fetch again what the interpreter has.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        is_pip = _installer(manager)[0] == "pip"
        said = _run(
            manager, ["--dry-run", *(["--report", str(report)] if is_pip else []), *options, *wanted], told
        )
        found = _reported(report.read_text()) if is_pip else _told(said)
    wheels = {Path(each).name: each for each in wanted if each.endswith(".whl")}
    more = [
        url or f"{name}=={number}" for name, number, url in found if Path(unquote(url)).name not in wheels
    ]
    return [*wheels.values(), *more]


def _reported(report: str) -> list[tuple[str, str, str]]:
    """Return name, version and, if it comes from somewhere itself, URL of what pip would install."""
    items = [(item, item["metadata"]) for item in json.loads(report)["install"]]
    return [
        (meta["name"], meta["version"], item["download_info"]["url"] if item["is_direct"] else "")
        for item, meta in items
    ]


def _told(said: str) -> list[tuple[str, str, str]]:
    """Return the same of what uv would install, which has no report: it prints a line for each."""
    lines = re.findall(r"^ [+~] ([^\s=]+)(?:==(\S+))?(?: (?:@ |\(from )([^\s)]+)\)?)?$", said, re.MULTILINE)
    return [(name, number, url) for name, number, url in lines]


def _installer(manager: str) -> tuple[str, list[str]]:
    """Return pip's or uv's name and command; the other's where this one is not installed."""
    uv = shutil.which("uv")
    commands = {"pip": [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else []}
    if importlib.util.find_spec("uv"):
        commands["uv"] = [sys.executable, "-m", "uv", "pip"]
    elif uv:
        commands["uv"] = [uv, "pip"]
    for name in (manager, "pip", "uv"):
        if commands.get(name):
            return name, commands[name]
    raise BootstrapError(f"neither pip nor uv is installed for {sys.executable} on this worker")


def _run(manager: str, arguments: list[str], told: str) -> str:
    name, command = _installer(manager)
    interpreter = ["--python", sys.executable] if name == "uv" else []
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "install", *interpreter, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **quiet},
        check=False,
    )
    if done.returncode:
        lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
        raise BootstrapError("\n".join([f"{told}:", *(f"  {line}" for line in lines[-_OUTPUT_LINES:])]))
    return done.stdout
