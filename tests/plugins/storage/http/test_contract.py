"""The storage contract, over nginx and over a server that speaks WebDAV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.storage_servers.web import HttpServer

from synapse_kernel.storage import Storage
from synapse_kernel.testing.storage import StorageContract
from synapse_kernel.testing.storage_parts import ODD_NAMES, Fill, keys_of, write_tree

# nginx lists no name that begins with a dot.
SHOWN = tuple(name for name in ODD_NAMES if not name.startswith("."))


class TestNginx(StorageContract):
    """nginx with its dav module, its folders listed as JSON."""

    @pytest.fixture
    def storage(self, http: HttpServer, opened: Callable[..., Storage]) -> Storage:
        """Return a folder of its own."""
        return opened(http.url + http.make_folder())

    @pytest.fixture(autouse=True)
    def only_shown_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leave out of the trees what nginx hides."""
        for part in ("downloads", "uploads"):
            monkeypatch.setattr(f"synapse_kernel.testing.storage_{part}.ODD_NAMES", SHOWN)

    @pytest.mark.parametrize("name", SHOWN, ids=ascii)
    def test_a_name_is_listed_as_it_was_written(self, listed: Storage, fill: Fill, name: str) -> None:
        """As nginx shows it."""
        super().test_a_name_is_listed_as_it_was_written(listed, fill, name)


class TestPagesOfLinks(TestNginx):
    """nginx that takes no writes, its folders listed as pages of links."""

    writable = False

    @pytest.fixture
    def own_folder(self, http: HttpServer) -> str:
        """Return the name of a folder of its own."""
        return http.make_folder()

    @pytest.fixture
    def storage(self, http: HttpServer, own_folder: str, opened: Callable[..., Storage]) -> Storage:
        """Return that folder."""
        return opened(http.html_url + own_folder)

    @pytest.fixture
    def fill(self, http: HttpServer, own_folder: str) -> Fill:
        """Return what writes the server's files past it."""

        def write(files: dict[str, bytes]) -> None:
            write_tree(Path(http.files) / own_folder, files)

        return write  # type: ignore[return-value]


class TestWebdav(StorageContract):
    """A server that speaks WebDAV in full; it takes two unicode forms of a name for one."""

    forms_apart = False

    @pytest.fixture
    def storage(self, in_webdav: Storage) -> Storage:
        """Return a folder of its own."""
        return in_webdav

    def test_two_writers_of_one_key_leave_one_whole_content(self, target: Storage) -> None:
        """Each writes whole; but for a moment this server has nothing there when it moves over a file."""
        contents = (b"1" * 300_000, b"2" * 200_000)

        self.together(
            [lambda content=content: target.write_bytes("folder/key", content) for content in contents]  # type: ignore[misc]
        )

        assert target.read_bytes("folder/key") in contents
        assert ["folder/key"] == keys_of(target.list(recursive=True))
