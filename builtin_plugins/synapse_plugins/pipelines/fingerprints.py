"""
What makes a cached result count: the same code, the same params, the same content of files.

A fingerprint errs on the safe side: what cannot be told — an object without source, a file that cannot be
read — is never the same twice.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, cast

import msgspec

from synapse_kernel import folders
from synapse_kernel.config import FILE_NAME
from synapse_kernel.errors import UsageError
from synapse_kernel.models import Field, fields_by_any_key, types_in
from synapse_kernel.serialization import NotJsonError, params_to_plain, to_plain
from synapse_kernel.syntax import parse_source
from synapse_plugins.pipelines.contents import add_texts, content_hash

if TYPE_CHECKING:
    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import ActionSpec

_JUNK = frozenset({"__pycache__", "node_modules", "site-packages"})
_CODE = (".py", ".pyc", ".so", ".pyd")
# Names under which results tell paths as plain text, as the kernel's own result models do.
_PATH_ENDINGS = ("path", "_path", "_dir", "_folder", "_file")

# How deep what an action captured is looked into.
_DEEPEST = 50

# Modules whose changes come with a version of this package or of Python.
_NOT_ITS_OWN = sys.stdlib_module_names - {"__main__"} | {"synapse_kernel", "pydantic", ""}


def code_fingerprint(spec: ActionSpec, code: ActionCode) -> str:
    """
    Return a hash of an action's code.

    A folder with a `config.yaml` counts with all its Python sources. A single file, or a module of no
    distribution, counts with those beside it that it imports, directly or not. A package counts with all
    of its sources and the version of its distribution. An object without any source is never the same.

    It reads files: take it once a run. What code imports by computed names is not seen beside a single file.
    """
    digest = hashlib.blake2b(digest_size=20)
    add_texts(digest, spec.ref.entrypoint)
    if spec.ref.folder is not None:
        _add_folder(digest, spec.ref.folder, spec.ref.entrypoint.partition(":")[0])
        return digest.hexdigest()
    obj = inspect.unwrap(code.obj) if callable(code.obj) else code.obj
    _add_captured(digest, obj)
    for module in _modules_of(obj):
        in_folder = folders.split(module)
        if in_folder is not None:
            _add_folder(digest, *in_folder)
        else:
            _add_module(digest, module, obj)
    return digest.hexdigest()


def cache_key(
    code: str,
    params: object,
    *,
    params_type: object = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    version: str | None = None,
) -> str:
    """
    Return the key under which a result is kept for those who ask for the same again.

    `code` is the action's `code_fingerprint`, `version` its package's. `params` are a mapping or a model,
    best as they were validated, so that defaults count. Where `params_type` says that a field is a path, and
    for each of `inputs`, the content of the file or folder stands for its name, whatever that is; a path
    with nothing there counts by its text, and so does one of pydantic's ``NewPath``.

    Raises `UsageError` for params that are not JSON: they cannot be compared.
    """
    plain = _with_contents(_plain(params), params_type, ())
    files = [_content_or_text(os.fspath(path)) for path in inputs]
    document = msgspec.json.encode([code, version, plain, files], order="deterministic")
    return hashlib.blake2b(document, digest_size=20).hexdigest()


def outputs_present(result: object, result_type: object = None) -> bool:
    """
    Tell whether the files and folders that a result names are still there.

    They are the fields that `result_type` says are paths, and absolute paths in text under names such as
    ``path`` and ``weights_path``.
    """
    try:
        plain = to_plain(result, name="result")
    except NotJsonError:
        plain = result
    return all(os.path.exists(path) for path in _paths_in(plain, result_type, ""))  # noqa: PTH110


def _plain(params: object) -> dict[str, object]:
    try:
        return params_to_plain(params)
    except UsageError as error:
        culprit = str(error).partition("\n")[0].removeprefix("The params are not JSON: ")
        raise UsageError(
            f"The result cannot be cached: {culprit}, which cannot be compared with that of another run\n"
            "  give params that are JSON, or take `cache` off the node"
        ) from None


def _with_contents(value: object, annotation: object, metadata: Sequence[object]) -> object:
    """Copy params with the content of what a path names in its place."""
    if isinstance(value, str):
        if _means_path(annotation) and not _is_new(annotation, metadata):
            return _content_or_text(value)
        return value
    if isinstance(value, Mapping):
        known = _fields_in(annotation)
        return {
            key: _with_contents(item, *_annotated(known.get(key), annotation)) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_contents(item, annotation, metadata) for item in value]
    return value


def _content_or_text(path: str) -> object:
    found = content_hash(path)
    # Of another shape than any text, lest a param that spells a hash be taken for a file.
    return path if found is None else {"content": found}


def _paths_in(value: object, annotation: object, name: str) -> Iterator[str]:
    """Yield the paths that a result names."""
    if isinstance(value, str):
        if _means_path(annotation) or (name.endswith(_PATH_ENDINGS) and os.path.isabs(value)):  # noqa: PTH117
            yield value
    elif isinstance(value, PurePath):
        yield str(value)
    elif isinstance(value, Mapping):
        known = _fields_in(annotation)
        for key, item in value.items():
            yield from _paths_in(item, _annotated(known.get(key), annotation)[0], str(key))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths_in(item, annotation, name)


def _fields_in(annotation: object) -> dict[str, Field]:
    return {key: field for kind in types_in(annotation) for key, field in fields_by_any_key(kind).items()}


def _annotated(field: Field | None, around: object) -> tuple[object, Sequence[object]]:
    """Return a field's type; a key that is no field may be one of a mapping's, whose type says more."""
    return (around, ()) if field is None else (field.annotation, field.metadata)


def _means_path(annotation: object) -> bool:
    return any(isinstance(kind, type) and issubclass(kind, PurePath) for kind in types_in(annotation))


def _is_new(annotation: object, metadata: Sequence[object]) -> bool:
    """Tell whether a path must not exist yet: pydantic's ``NewPath``."""
    marks = (*metadata, *types_in(annotation))
    return any(getattr(mark, "path_type", None) == "new" for mark in marks)


def _modules_of(obj: object) -> list[str]:
    """Return the modules that an action's code is in: its own and, for a class, those it derives from."""
    kinds = obj.__mro__ if isinstance(obj, type) else (obj,)
    names = {str(getattr(kind, "__module__", "")) for kind in kinds}
    return sorted(n for n in names if n.startswith(folders.PREFIX) or n.partition(".")[0] not in _NOT_ITS_OWN)


def _add_files(digest: hashlib.blake2b, root: Path, files: Iterable[Path]) -> None:
    for file in sorted(files):
        add_texts(digest, file.relative_to(root).as_posix(), content_hash(file) or "")


def _add_folder(digest: hashlib.blake2b, folder: str, module: str) -> None:
    root = Path(folder)
    if (root / FILE_NAME).is_file():
        _add_files(digest, root, [root / FILE_NAME, *_sources(root)])
    else:
        _add_files(digest, root, _imported(root, module))


def _add_module(digest: hashlib.blake2b, name: str, obj: object) -> None:
    """Add the sources around a module that is not in a folder of actions."""
    file = Path(getattr(sys.modules.get(name), "__file__", None) or "")
    if not file.is_file():
        add_texts(digest, _source_text(obj))
        return
    parts = name.split(".")
    packages = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    inits = (Path(getattr(sys.modules.get(package), "__file__", None) or "") for package in packages)
    top = next((init.parent for init in inits if init.stem == "__init__"), None)
    if top is not None:
        add_texts(digest, _version(parts[0], file))
        _add_files(digest, top, _sources(top))
    elif "site-packages" in file.parts:
        # Its neighbours there are other distributions.
        add_texts(digest, _version(parts[0], file))
        _add_files(digest, file.parent, [file])
    else:
        _add_files(digest, file.parent, _imported(file.parent, file.stem))


def _add_captured(digest: hashlib.blake2b, obj: object) -> None:
    """Add what an action that was made inside a function took from there: its source does not show it."""
    if "<locals>" not in getattr(obj, "__qualname__", ""):
        return
    inside = vars(obj).values() if isinstance(obj, type) else (obj,)
    for function in inside:
        for cell in getattr(function, "__closure__", None) or ():
            try:
                add_texts(digest, _text_of(cell.cell_contents))
            except ValueError:  # not bound yet
                add_texts(digest, "")
        for name in ("__defaults__", "__kwdefaults__"):
            add_texts(digest, _text_of(getattr(function, name, None)))


def _text_of(value: object) -> str:
    """Return plain data as text; of anything else it cannot be told whether it is the same."""
    return repr(value) if _is_plain(value, ()) else os.urandom(20).hex()


def _is_plain(value: object, around: tuple[int, ...]) -> bool:
    """Tell whether a value is what JSON holds, of the very types that its text tells of."""
    if value is None or value.__class__ in {bool, int, float, str}:
        return True
    if id(value) in around or len(around) > _DEEPEST:
        return False
    inside = (*around, id(value))
    if value.__class__ is dict:
        items = cast("dict[object, object]", value).items()
        return all(key.__class__ is str and _is_plain(item, inside) for key, item in items)
    if value.__class__ in {list, tuple}:
        return all(_is_plain(item, inside) for item in cast("Sequence[object]", value))
    return False


def _source_text(obj: object) -> str:
    # All code made of text bears this name, and Python 3.13 finds the text of `python -c` under it.
    if getattr(getattr(obj, "__code__", None), "co_filename", None) == "<string>":
        return os.urandom(20).hex()
    try:
        return inspect.getsource(obj)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return os.urandom(20).hex()


def _version(package: str, file: Path) -> str:
    """Return the version of the distribution that brought a top-level package, or nothing."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # All distributions are read for this: only where the package must be of one.
        named = _distributions().get(package, ()) if "site-packages" in file.parts else ()
        return " ".join(metadata.version(name) for name in sorted(set(named)))


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, Sequence[str]]:
    from importlib.metadata import packages_distributions

    return packages_distributions()


def _sources(root: Path) -> Iterator[Path]:
    """Yield the code in a folder, but for what tools leave there: hidden folders, caches, environments."""
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (folder != str(root) and Path(folder, "pyvenv.cfg").exists()):
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith(".") and s not in _JUNK)
        yield from (Path(folder, name) for name in names if name.endswith(_CODE) and name[0] != ".")


def _imported(root: Path, module: str) -> set[Path]:
    """Return the files of a module in a folder, and of those in the folder that it imports, at any depth."""
    files: set[Path] = set()
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        place = root.joinpath(*name.split(".")) if name != "__init__" else root
        file = next((f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file()), None)
        if file is None:
            continue
        files.add(file)
        if "." in name:
            pending.append(name.rpartition(".")[0])
        pending.extend(_imports(file, name, content_hash(file)))
    return files


@lru_cache(maxsize=1000)
def _imports(file: Path, name: str, content: str | None) -> tuple[str, ...]:  # noqa: ARG001 - a part of the key
    """Return the modules that a file may mean by its imports, also those inside its functions."""
    return tuple(_imports_in(file, name))


def _imports_in(file: Path, name: str) -> Iterator[str]:
    try:
        tree = parse_source(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if stem:
                yield stem
            yield from (f"{stem}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")
