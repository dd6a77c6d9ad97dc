"""nginx over a folder: files that are read and written, and places that do so in ways of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.storage_servers.programs import HOST, absent, need_program, serving, speaks_http

USERNAME = "reader"
PASSWORD = "secret-of-the-tests"
HEADER = ("X-Api-Key", "key-of-the-tests")
SLOW_BYTES_PER_SECOND = 64 * 1024


@dataclasses.dataclass(frozen=True)
class HttpServer:
    """An nginx whose places all show one folder; each URL ends with a slash."""

    port: int
    pid: int
    log: Path
    files: Path
    username: str = USERNAME
    password: str = PASSWORD
    header: tuple[str, str] = HEADER

    @property
    def url(self) -> str:
        """Return where files are read, also by ranges, listed as JSON, put, deleted, copied and moved."""
        return f"http://{HOST}:{self.port}/"

    @property
    def html_url(self) -> str:
        """Return where folders are listed as a page of links."""
        return f"{self.url}html/"

    @property
    def read_only_url(self) -> str:
        """Return where whatever would write is answered with 405."""
        return f"{self.url}read-only/"

    @property
    def private_url(self) -> str:
        """Return where a name and a password are asked for, to read and to write; else 401."""
        return f"{self.url}private/"

    @property
    def header_url(self) -> str:
        """Return where a request without `header` is answered with 403."""
        return f"{self.url}with-header/"

    @property
    def moved_url(self) -> str:
        """Return where each request is redirected to `url`, with 302."""
        return f"{self.url}moved/"

    @property
    def loop_url(self) -> str:
        """Return where each request is redirected to itself."""
        return f"{self.url}loop/"

    @property
    def slow_url(self) -> str:
        """Return where an answer comes at `SLOW_BYTES_PER_SECOND`."""
        return f"{self.url}slow/"

    @property
    def no_ranges_url(self) -> str:
        """Return where a range is answered with the whole file."""
        return f"{self.url}no-ranges/"

    def make_folder(self) -> str:
        """Make a folder that no other test knows, and return its name: it is below `files` and each URL."""
        name = f"folder-{uuid.uuid4().hex[:12]}"
        (self.files / name).mkdir()
        return name

    def through(self, port: int) -> HttpServer:
        """Return the same server as seen through a proxy."""
        return dataclasses.replace(self, port=port)


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[HttpServer]:
    """Run nginx as the user who runs the tests."""
    nginx = need_program("nginx", "nginx-light")
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, timeout=60).stderr
    if "http_dav_module" not in built:
        absent("nginx with its dav module (package nginx-light)")
    files = folder / "files"
    files.mkdir()
    (folder / "users").write_text(f"{USERNAME}:{{PLAIN}}{PASSWORD}\n")

    def command(port: int) -> list[str | Path]:
        (folder / "nginx.conf").write_text(_configuration(folder, files, port))
        return [nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]

    with serving(command, folder, speaks_http) as program:
        yield HttpServer(program.port, program.pid, folder / "error.log", files)


def _configuration(folder: Path, files: Path, port: int) -> str:
    temporary = "".join(
        f"  {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    writing = "dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; dav_access user:rw;"
    listing = "autoindex on; autoindex_format json;"
    name, value = HEADER
    asked = f'if ($http_{name.lower().replace("-", "_")} != "{value}") {{ return 403; }}'
    # As root, nginx would hand its work to another user, who may not read a test's folder.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    return f"""\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 2048; }}
http {{
  access_log {folder}/access.log;
{temporary}
  default_type application/octet-stream;
  client_max_body_size 0;
  keepalive_requests 100000;
  sendfile on;
  # A redirect leads back to where the request came from, also through a proxy.
  absolute_redirect off;
  server {{
    listen {HOST}:{port} backlog=1024;
    root {files};
    location / {{ {writing} {listing} }}
    location /html/ {{ alias {files}/; autoindex on; }}
    location /read-only/ {{ alias {files}/; {listing} }}
    location /private/ {{
      alias {files}/; {writing} {listing} auth_basic "tests"; auth_basic_user_file {folder}/users;
    }}
    location /with-header/ {{ {asked} alias {files}/; {writing} {listing} }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /loop/ {{ return 302 $request_uri; }}
    location /slow/ {{ alias {files}/; limit_rate {SLOW_BYTES_PER_SECOND}; }}
    location /no-ranges/ {{ alias {files}/; max_ranges 0; }}
  }}
}}
"""
