"""What a server shows of a folder: as nginx's JSON, as WebDAV's answers, or as a page of links."""

from __future__ import annotations

import codecs
import json
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree

import msgspec

from synapse_kernel.storage.errors import StorageError
from synapse_kernel.storage.keys import join_key
from synapse_kernel.storage.providers import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from xml.etree.ElementTree import Element

PROPERTIES = b"""<?xml version="1.0" encoding="utf-8"?>
<D:propfind xmlns:D="DAV:"><D:prop>
<D:resourcetype/><D:getcontentlength/><D:getlastmodified/><D:getetag/>
</D:prop></D:propfind>"""
"""What is asked of a WebDAV server."""

_UNREADABLE = "what the server lists cannot be read"


class _Item(msgspec.Struct):
    name: str
    type: str
    mtime: str = ""
    size: int | None = None


def of_json(folder: str, url: str, pieces: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the entries of a folder that nginx lists with ``autoindex_format json``."""
    del url
    # A name that is no text is taken as the bytes it is, and asked for as these.
    text = b"".join(pieces).decode(errors="surrogateescape")
    try:
        items = msgspec.json.decode(text.encode("utf-8"), type=list[_Item])
    except UnicodeEncodeError:
        items = _odd_items(text)
    except msgspec.DecodeError as error:
        raise StorageError(f"{_UNREADABLE}: {error}") from None
    for item in items:
        if item.type not in {"file", "directory"} or not _is_name(item.name):
            continue
        key = join_key(folder, item.name)
        modified = time_of(item.mtime)
        if item.type == "directory":
            yield Entry(key=key, is_folder=True, modified=modified)
        else:
            yield Entry(key=key, size=item.size, modified=modified)


def of_properties(folder: str, url: str, pieces: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the entries of a folder that a WebDAV server tells the properties of, without the folder's."""
    itself = _path(url)
    for element in _responses(pieces):
        name = _name_below(itself, urljoin(url, (element.findtext("{DAV:}href") or "").strip()))
        if name is not None:
            yield _entry_of(join_key(folder, name), element)


def one_of_properties(key: str, pieces: Iterable[bytes]) -> Entry:
    """Return the entry of what a WebDAV server tells the properties of."""
    for element in _responses(pieces):
        return _entry_of(key, element)
    raise FileNotFoundError(key)


def of_links(folder: str, url: str, pieces: Iterable[bytes]) -> Iterator[Entry]:
    """
    Yield what the links of a page lead to, if it lies right in the folder; neither size nor time is known.

    Raises `StorageError` for a page that has no link into the folder, nor one to the folder above it.
    """
    parser = _Links()
    itself = _path(url)
    above = itself.rstrip("/").rpartition("/")[0] + "/"
    seen: set[str] = set()
    is_index = False
    for text in _texts(pieces):
        parser.feed(text)
        for link in parser.taken():
            target = urljoin(url, link)
            is_index = is_index or _path(target) == above
            name = _name_below(itself, target)
            if name is None or name in seen or urlsplit(target).netloc != urlsplit(url).netloc:
                continue
            seen.add(name)
            key = join_key(folder, name)
            yield Entry(key=key, is_folder=True) if _path(target).endswith("/") else Entry(key=key)
    if not seen and not is_index:
        raise lists_nothing()


def lists_nothing() -> StorageError:
    """Return the error for a server that shows no folders."""
    return StorageError(
        "this server does not list its folders, neither as JSON or a page of links (nginx: autoindex on) nor "
        "by WebDAV: name each file"
    )


def time_of(text: str | None) -> float | None:
    """Return the seconds since 1970 of a time as HTTP writes it; None for what is none."""
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


class _Links(HTMLParser):
    """Gathers where links lead."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the target of a link."""
        if tag == "a":
            self._found += [value for name, value in attrs if name == "href" and value]

    def taken(self) -> list[str]:
        """Return what was found since the last call."""
        found, self._found = self._found, []
        return found


def _responses(pieces: Iterable[bytes]) -> Iterator[Element]:
    parser: ElementTree.XMLPullParser[Element] = ElementTree.XMLPullParser(["end"])
    try:
        for piece in pieces:
            parser.feed(piece)
            for _, element in cast("Iterator[tuple[str, Element]]", parser.read_events()):
                if element.tag == "{DAV:}response":
                    yield element
                    element.clear()
        parser.close()
    except ElementTree.ParseError as error:
        raise StorageError(f"{_UNREADABLE}: {error}") from None


def _texts(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _odd_items(text: str) -> list[_Item]:
    return msgspec.convert(json.loads(text), list[_Item])


def _entry_of(key: str, element: Element) -> Entry:
    modified = time_of(element.findtext(".//{DAV:}getlastmodified"))
    if element.find(".//{DAV:}resourcetype/{DAV:}collection") is not None:
        return Entry(key=key, is_folder=True, modified=modified)
    size = element.findtext(".//{DAV:}getcontentlength") or ""
    etag = element.findtext(".//{DAV:}getetag") or None
    return Entry(key=key, size=int(size) if size.isdecimal() else None, modified=modified, etag=etag)


def _path(url: str) -> str:
    return unquote(urlsplit(url).path, errors="surrogateescape")


def _name_below(folder: str, url: str) -> str | None:
    # Looked at before it is decoded: a name may have an encoded slash, and would be in another folder then.
    parts = urlsplit(url)
    path = _path(url)
    if not path.startswith(folder) or path == folder:
        return None
    raw = parts.path.rstrip("/").rpartition("/")[2]
    name = unquote(raw, errors="surrogateescape")
    return name if path.rstrip("/") == folder + name and _is_name(name) else None


def _is_name(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and "/" not in name and "\0" not in name
