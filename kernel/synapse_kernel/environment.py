"""The environment of a run: named variables with typed access, never the caller's whole environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, cast

from synapse_kernel.errors import EnvError, listing, suggest
from synapse_kernel.redaction import MASK, is_secret_name

T = TypeVar("T")

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


class _Missing:
    """Stands for a default that was not given: None is a default like any other."""


_MISSING = _Missing()


class PluginEnvironment(Mapping[str, str]):
    """
    A read-only mapping of variables, with values as text and accessors that convert.

    A key that is missing without a default, and a value that does not convert, raise `EnvError` naming the
    key, and the value unless its name says that it is secret.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values = {str(key): _as_text(str(key), value) for key, value in (values or {}).items()}

    @classmethod
    def from_environ(
        cls, prefix: str = "", environ: Mapping[str, str] | None = None, *, strip: bool = False
    ) -> PluginEnvironment:
        """Take the variables whose names start with `prefix`; `strip` takes the prefix off."""
        source = os.environ if environ is None else environ
        return cls(
            {
                (key.removeprefix(prefix) if strip else key): value
                for key, value in source.items()
                if key.startswith(prefix) and (not strip or key != prefix)
            }
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> PluginEnvironment:
        """
        Read a TOML, YAML or ``.env`` file of flat keys; the name's ending decides.

        Raises `EnvError` if it is not there, does not parse, or holds more than keys with plain values.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EnvError(f"Cannot read the environment file {file}: {error}", key=str(file)) from error
        suffix = file.suffix.lower()
        if suffix == ".toml":
            return cls(_parse_toml(text, file))
        if suffix in {".yaml", ".yml"}:
            return cls(_parse_yaml(text, file))
        return cls(_parse_dotenv(text, file))

    def merge(self, *others: Mapping[str, object]) -> PluginEnvironment:
        """Return a new environment of this and the others; of a key in several, the last wins."""
        merged: dict[str, object] = dict(self._values)
        for other in others:
            merged.update(other)
        return PluginEnvironment(merged)

    def get_str(self, key: str, default: str | T | _Missing = _MISSING) -> str | T:
        """Return the text of a variable."""
        value = self._values.get(key)
        if value is not None:
            return value
        if isinstance(default, _Missing):
            raise EnvError(
                f"Environment variable {key!r} is not set for this run{suggest(key, self._values)}\n"
                f"  set for this run: {listing(self._values)}\n"
                f"  pass it with  --env {key}=VALUE  (or --env {key} to take it from your shell)",
                key=key,
            )
        return default

    def get_int(self, key: str, default: int | T | _Missing = _MISSING) -> int | T:
        """Return a whole number."""
        return cast("int | T", self._convert(key, default, int, "a whole number"))

    def get_float(self, key: str, default: float | T | _Missing = _MISSING) -> float | T:
        """Return a number."""
        return cast("float | T", self._convert(key, default, float, "a number"))

    def get_bool(self, key: str, default: bool | T | _Missing = _MISSING) -> bool | T:
        """Return a truth value: 1, true, yes, on, or 0, false, no, off and the empty text, in any case."""
        return cast("bool | T", self._convert(key, default, _as_bool, "true or false (1/0, yes/no, on/off)"))

    def get_list(
        self, key: str, default: list[str] | T | _Missing = _MISSING, *, separator: str = ","
    ) -> list[str] | T:
        """Return the parts between separators, without the white space around them; empty parts go."""
        return cast(
            "list[str] | T",
            self._convert(
                key, default, lambda text: [p.strip() for p in text.split(separator) if p.strip()], "a list"
            ),
        )

    def get_path(self, key: str, default: Path | T | _Missing = _MISSING) -> Path | T:
        """Return a path, with ``~`` expanded."""
        return cast("Path | T", self._convert(key, default, lambda text: Path(text).expanduser(), "a path"))

    def to_dict(self) -> dict[str, str]:
        """Return a copy as a dict, secrets included."""
        return dict(self._values)

    def masked(self) -> dict[str, str]:
        """Return a copy as a dict with the values under secret names replaced."""
        return {key: MASK if is_secret_name(key) else value for key, value in self._values.items()}

    def _convert(self, key: str, default: object, convert: Callable[[str], object], wanted: str) -> object:
        if key not in self._values and not isinstance(default, _Missing):
            return default
        text = self.get_str(key)
        try:
            return convert(text)
        except ValueError:
            shown = MASK if is_secret_name(key) else repr(text)
            raise EnvError(f"Environment variable {key!r} is not {wanted}: {shown}", key=key) from None

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"PluginEnvironment({self.masked()!r})"


def _as_text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, (str, int, float)) for v in value):
        return ",".join(_as_text(key, v) for v in value)
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if value is None:
        return ""
    raise EnvError(
        f"Environment variable {key!r} must be text, a number, true or false, or a list of those, "
        f"not {type(value).__name__}",
        key=key,
    )


def _as_bool(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError(text)


def _parse_toml(text: str, file: Path) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnvError(f"{file} is not valid TOML: {error}", key=str(file)) from error


def _parse_yaml(text: str, file: Path) -> dict[str, object]:
    from synapse_kernel.yaml_files import YamlError, parse_mapping

    try:
        return parse_mapping(text, file)
    except YamlError as error:
        raise EnvError(str(error), key=str(file)) from error


def _parse_dotenv(text: str, file: Path) -> dict[str, object]:
    from io import StringIO

    from dotenv.parser import parse_stream

    values: dict[str, object] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            line = binding.original.line
            raise EnvError(
                f"{file} line {line} is not KEY=VALUE: {binding.original.string.strip()!r}", key=str(file)
            )
        if binding.key is not None:
            values[binding.key] = binding.value
    return values
