"""What counts as a secret, and how it is kept out of events, plans, the history and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

MASK = "***"

_SECRET_WORD = re.compile(r"KEY|TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
# Words of our field that merely contain a secret word.
_HARMLESS = re.compile(
    r"KEY_?(POINT|FRAME|WORD|BOARD|STONE)|(MON|TUR|DON|HOC|WHIS)KEY|TOKENI[SZ]|TOKENS", re.IGNORECASE
)
_SECRET_KEY_IN_JSON = re.compile(
    rb'(?i:key|token|secret|passw|passphrase|credential)(?:[^"\\]|\\.)*":', re.DOTALL
)
# Shorter values would blot out ordinary words of a message.
_SHORTEST_SECRET = 4


def is_secret_name(name: str) -> bool:
    """Tell whether a variable or field of this name holds a secret (``API_KEY`` yes, ``keypoints`` no)."""
    return bool(_SECRET_WORD.search(name)) and bool(_SECRET_WORD.search(_HARMLESS.sub("", name)))


def redact(value: object, *, name: str = "") -> object:
    """Return a copy of JSON-like data with the text under secret names replaced; numbers stay."""
    if isinstance(value, Mapping):
        secret = is_secret_name(name)
        return {key: redact(item, name=name if secret else str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, name=name) for item in value]
    if isinstance(value, (str, bytes)) and name and is_secret_name(name):
        return MASK
    if type(value).__name__ in {"SecretStr", "SecretBytes"}:
        return MASK
    return value


def masked_places(value: object, place: str = "") -> Iterator[str]:
    """Yield where in redacted data a mask stands, as dotted paths."""
    if value == MASK:
        yield place
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from masked_places(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from masked_places(item, f"{place}.{index}")


def may_hold_secret_names(raw: bytes) -> bool:
    """Tell cheaply whether encoded JSON needs a closer look by `redact`."""
    # Plain searches first, in text, where they are several times faster than in bytes: this is done for every
    # logged event, and the pattern alone costs more than all else that is done for one.
    low = raw.lower().decode("latin-1")
    if "key" in low or "token" in low or "secret" in low or "pass" in low or "credential" in low:
        return _SECRET_KEY_IN_JSON.search(raw) is not None
    return False


class Redactor:
    """Replaces the known secret values of one run wherever they stand in text or encoded JSON."""

    __slots__ = ("_raw", "_text")

    def __init__(self, secrets: Iterable[str]) -> None:
        import json

        # The longest first, so that a secret that contains another is replaced whole.
        kept = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._text = kept
        self._raw = sorted(
            {
                form.encode()
                for secret in kept
                for form in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
            },
            key=len,
            reverse=True,
        )

    def __bool__(self) -> bool:
        return bool(self._text)

    def text(self, text: str) -> str:
        """Mask the secrets in plain text."""
        for secret in self._text:
            text = text.replace(secret, MASK)
        return text

    def data(self, value: object) -> object:
        """Return JSON-like data with the secrets in it masked."""
        import msgspec

        return msgspec.json.decode(self.raw(msgspec.json.encode(value))) if self._raw else value

    def raw(self, raw: bytes) -> bytes:
        """Mask the secrets in encoded JSON."""
        for secret in self._raw:
            raw = raw.replace(secret, MASK.encode())
        return raw


def secrets_of_env(env: Mapping[str, str]) -> list[str]:
    """Return the values of an environment whose names say that they are secret."""
    return [value for name, value in env.items() if is_secret_name(name)]
