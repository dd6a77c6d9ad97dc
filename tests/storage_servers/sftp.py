"""OpenSSH's own SFTP server, with keys and with a password."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.storage_servers.programs import HOST, absent, need_program, serving, speaks_first

PASSWORD = "secret-of-the-tests"
PASSPHRASE = "phrase-of-the-tests"

# What crypt(3) makes of the password: neither every Python nor every machine has a way to make it.
_HASHED = "$6$synapse$KabdexeAQpWcQTMDfUyJC4k3YwNhKaxiIhsDswpUhjWext7Xbv4zRK6veAOjJjyLfnmSwXCRRF.lfWHqFc4750"


# The one inside sshd, under nss_wrapper, may list each name of a folder twice.
_PROGRAM = Path("/usr/lib/openssh/sftp-server")
_SUBSYSTEM = str(_PROGRAM) if _PROGRAM.exists() else "internal-sftp"


@dataclasses.dataclass(frozen=True)
class SftpServer:
    """
    An sshd for the user who runs the tests.

    A relative path starts at `root`; one from `/` reaches whatever the user does.
    """

    host: str
    port: int
    pid: int
    log: Path
    folder: Path
    username: str
    password: str | None
    """None where the machine gives no way to check one without changing its accounts."""
    private_key: Path
    """Let in, without a passphrase."""
    encrypted_key: Path
    """Let in, with a passphrase."""
    unknown_key: Path
    """Not let in."""
    host_key: str
    """The server's public key: its type and itself."""
    wrong_host_key: str
    """A public key that is not the server's."""
    root: Path
    passphrase: str = PASSPHRASE

    @property
    def known_hosts(self) -> Path:
        """Return a file of known hosts with the server's key under its port."""
        return self._known_hosts("known_hosts", self.host_key)

    @property
    def wrong_known_hosts(self) -> Path:
        """Return a file of known hosts with another key under the server's port."""
        return self._known_hosts("wrong_known_hosts", self.wrong_host_key)

    def make_folder(self) -> Path:
        """Make a folder in the root that no other test knows."""
        made = self.root / f"folder-{uuid.uuid4().hex[:12]}"
        made.mkdir()
        return made

    def through(self, port: int) -> SftpServer:
        """Return the same server as seen through a proxy."""
        return dataclasses.replace(self, port=port)

    def need_password(self) -> str:
        """Return the user's password; where none can be checked, the test is skipped."""
        return self.password or absent("libnss_wrapper.so (package libnss-wrapper)")

    def _known_hosts(self, name: str, key: str) -> Path:
        file = self.folder / f"{name}-{self.port}"
        file.write_text(f"[{self.host}]:{self.port} {key}\n")
        return file


@contextlib.contextmanager
def sftp_server(folder: Path, *, read_only: bool = False) -> Iterator[SftpServer]:
    """
    Run sshd for the user who runs the tests.

    The password is checked by sshd itself: a preloaded library, nss_wrapper, shows it accounts of ours in
    place of the machine's, which are not touched. With `read_only` whatever would write is refused.
    """
    sshd = need_program("sshd", "openssh-server")
    need_program("ssh-keygen", "openssh-client")
    if os.getuid() == 0:
        # sshd as root wants this folder; a machine makes it when it starts an sshd of its own.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    root = folder / "root"
    root.mkdir()
    public = {name: _make_key(folder / name) for name in ("host", "other_host", "client", "unknown")}
    public["encrypted"] = _make_key(folder / "encrypted", PASSPHRASE)
    (folder / "authorized_keys").write_text(f"{public['client']}\n{public['encrypted']}\n")
    (folder / "sshd_config").write_text(_configuration(folder, root, read_only=read_only))
    variables = _accounts(folder, root)
    with serving(
        lambda port: [sshd, "-D", "-e", "-f", folder / "sshd_config", "-p", str(port)],
        folder,
        speaks_first,
        variables,
    ) as program:
        yield SftpServer(
            host=HOST,
            port=program.port,
            pid=program.pid,
            log=program.log,
            folder=folder,
            username=pwd.getpwuid(os.getuid()).pw_name,
            password=PASSWORD if variables else None,
            private_key=folder / "client",
            encrypted_key=folder / "encrypted",
            unknown_key=folder / "unknown",
            host_key=public["host"],
            wrong_host_key=public["other_host"],
            root=root,
        )


def _make_key(file: Path, passphrase: str = "") -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "tests", "-f", file],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    return " ".join(file.with_name(f"{file.name}.pub").read_text().split()[:2])


def _configuration(folder: Path, root: Path, *, read_only: bool) -> str:
    lines = {
        "ListenAddress": HOST,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "PermitRootLogin": "yes",
        "PasswordAuthentication": "yes",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        # The tests' folders lie below one that everybody may write.
        "StrictModes": "no",
        "UseDNS": "no",
        "PrintMotd": "no",
        "LogLevel": "VERBOSE",
        "MaxAuthTries": "50",
        "MaxSessions": "500",
        "MaxStartups": "500",
        "Subsystem": f"sftp {_SUBSYSTEM} -d {root}{' -R' if read_only else ''}",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


def _accounts(folder: Path, root: Path) -> dict[str, str]:
    """Write accounts of our own, and return the variables that show them to a program, if there is a way."""
    library = next((found for lib in ("/usr/lib", "/usr/lib64") for found in _libraries(Path(lib))), None)
    if library is None:
        return {}
    me = pwd.getpwuid(os.getuid())
    lines = {
        "passwd": f"{me.pw_name}:x:{me.pw_uid}:{me.pw_gid}::{root}:/bin/sh\n"
        "sshd:x:65533:65534::/run/sshd:/bin/false\n",
        "group": f"{me.pw_name}:x:{me.pw_gid}:\n",
        "shadow": f"{me.pw_name}:{_HASHED}:20000:0:99999:7:::\n",
    }
    for name, text in lines.items():
        (folder / name).write_text(text)
    shown = {f"NSS_WRAPPER_{name.upper()}": str(folder / name) for name in lines}
    return {"LD_PRELOAD": str(library), **shown}


def _libraries(folder: Path) -> list[Path]:
    return [*folder.glob("libnss_wrapper.so"), *folder.glob("*/libnss_wrapper.so")]
