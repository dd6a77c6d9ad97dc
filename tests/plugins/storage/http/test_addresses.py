"""Where requests go, with what, and where what lets in does not go."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from tests.plugins.storage.http.answering import Answer, answering
from tests.plugins.storage.http.conftest import Opened
from tests.storage_servers.web import HttpServer

from synapse_kernel.storage import RetryPolicy, Storage, StorageConfigError, StorageError
from synapse_kernel.storage.providers import configured
from synapse_plugins.storage.http.provider import HttpProvider


def failure_of(call: object, *arguments: object) -> StorageError:
    with pytest.raises(StorageError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value


@pytest.fixture(autouse=True)
def nobody_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's netrc and proxies out."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("no_proxy", "*")


def test_a_key_is_percent_encoded_in_its_url(opened: Opened) -> None:
    storage = opened("https://host/base")

    assert "https://host/base/a%20b/100%25%23%3F%2Bé.txt".replace("é", "%C3%A9") == storage.get_url(
        "a b/100%#?+é.txt"
    )
    assert "https://host/base/%252e%252e/x" == storage.get_url("%2e%2e/x")


def test_a_url_says_who_asks_and_nobody_shows_it() -> None:
    values = HttpProvider.from_url("https://me%40home:p%2Fw@host:8443/a%20b?token=secret&x=1#part")
    configuration = configured(HttpProvider, values)

    assert {
        "base_url": "https://host:8443/a%20b",
        "username": "me@home",
        "password": "p/w",
        "query": "token=secret&x=1",
    } == values
    assert "secret" not in repr(configuration)
    assert "https://host:8443/a%20b/c" == Storage(HttpProvider(configuration)).get_url("c")


@pytest.mark.parametrize("url", ["http://", "http:///path", "https://host:port/", "http://[::1/x"])
def test_a_url_that_names_no_host_is_refused(url: str) -> None:
    with pytest.raises(StorageConfigError) as caught:
        HttpProvider.from_url(url)

    assert str(caught.value) == (
        "Storage 'http': open: this is no URL of a web server: write https://host/path"
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"base_url": "host/path"},
            "base_url: Value error, it must be http://host/path or https://host/path",
        ),
        (
            {"base_url": "https://me:secret@host"},
            "base_url: Value error, a name and a password have their own fields: username, password",
        ),
        (
            {"base_url": "https://host?secret"},
            "base_url: Value error, what stands behind '?' has its own field: query",
        ),
        (
            {"base_url": "https://host", "headers": {"X-Key": "secret\r\nX-Other: 1"}},
            "headers: Value error, the value of the header 'X-Key' cannot hold line ends or other control "
            "characters",
        ),
        (
            {"base_url": "https://host", "headers": {"X Key": "secret"}},
            "headers: Value error, a header's name has letters, digits and '-' only",
        ),
        (
            {"base_url": "https://host", "token": "secret→"},
            "token: Value error, a token can hold characters of Latin-1 only",
        ),
        (
            {"base_url": "https://host", "query": "a secret"},
            "query: Value error, it must be percent-encoded, as it stands in a URL",
        ),
        (
            {"base_url": "https://host", "password": "secret"},
            "Value error, a password needs a username",
        ),
        (
            {"base_url": "https://host", "username": "me", "token": "secret"},
            "Value error, give either a token, or a username and a password",
        ),
        ({"base_url": "https://host", "timeout": 0}, "timeout: Input should be greater than 0"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused_without_its_secrets(
    values: dict[str, object], line: str
) -> None:
    with pytest.raises(StorageConfigError) as caught:
        configured(HttpProvider, values)

    assert str(caught.value) == f"Storage 'http': the configuration cannot be used:\n  {line}"


def test_name_and_password_let_in(http: HttpServer, opened: Opened) -> None:
    (http.files / "file").write_bytes(b"content")

    storage = opened(http.private_url, username=http.username, password=http.password)

    assert b"content" == storage.read_bytes("file")
    storage.write_bytes(f"{http.make_folder()}/new", b"new")


def test_the_netrc_file_is_asked_where_nothing_else_is_said(
    http: HttpServer, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (http.files / "file").write_bytes(b"content")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {http.username} password {http.password}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    assert b"content" == opened(http.private_url).read_bytes("file")


def test_a_token_and_a_query_go_with_every_request(opened: Opened) -> None:
    with answering(lambda _: Answer(body=b"content")) as server:
        storage = opened(server.url + "base", token="t0ken", query="key=s3cret")
        storage.read_bytes("a b")
        storage.info("a b")

    assert ["GET /base/a%20b?key=s3cret", "HEAD /base/a%20b?key=s3cret"] == server.lines
    assert {"Bearer t0ken"} == {asked.headers["authorization"] for asked in server.asked}


def test_a_redirect_is_followed(http: HttpServer, opened: Opened, tmp_path: Path) -> None:
    (http.files / "moved file").write_bytes(b"content")
    storage = opened(http.moved_url)

    storage.download("moved file", tmp_path / "got")

    assert (b"content", b"content") == (
        (tmp_path / "got").read_bytes(),
        storage.read_bytes("moved file"),
    )
    assert 7 == storage.info("moved file").size


def test_what_lets_in_does_not_go_to_another_host(opened: Opened) -> None:
    with (
        answering(lambda _: Answer(body=b"content")) as other,
        answering(lambda _: Answer(302, {"Location": f"{other.url}there"})) as server,
    ):
        storage = opened(server.url, token="t0ken", headers={"X-Key": "k3y"}, query="key=s3cret")
        assert b"content" == storage.read_bytes("file")

    assert {"authorization": "Bearer t0ken", "x-key": "k3y"}.items() <= server.asked[0].headers.items()
    assert ["GET /there"] == other.lines
    assert not {"authorization", "x-key"} & other.asked[0].headers.keys()


def test_a_redirect_that_never_ends_is_given_up(http: HttpServer, opened: Opened) -> None:
    error = failure_of(opened(http.loop_url, query="s3cret").read_bytes, "file")

    assert str(error) == (
        f"Storage 'http': read 'file': the server redirects more than 10 times, the last to "
        f"{http.loop_url}file"
    )


def test_a_write_is_not_carried_to_where_it_is_redirected(http: HttpServer, opened: Opened) -> None:
    error = failure_of(opened(http.moved_url).write_bytes, "file", b"")

    assert str(error) == (
        f"Storage 'http': write 'file': the server redirects PUT to {http.url}file, where it may mean "
        "something else: give the address it redirects to as `base_url`"
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for this machine, with its key, which nobody signed."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(file), "-out", str(file.with_suffix(".crt"))],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def tls_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_signed_is_refused(opened: Opened, certificate: Path) -> None:
    with answering(lambda _: Answer(body=b"content"), tls_of(certificate)) as server:
        error = failure_of(opened(server.url, token="t0ken").read_bytes, "file")

    assert [] == server.asked
    assert str(error) == (
        "Storage 'http': read 'file': the server's certificate is not to be trusted: self-signed "
        "certificate. A certificate authority of your own is named by the variable SSL_CERT_FILE"
    )


def test_a_certificate_of_ones_own_authority_is_named_by_a_variable(
    opened: Opened, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    with answering(lambda _: Answer(body=b"content"), tls_of(certificate)) as server:
        assert b"content" == opened(server.url).read_bytes("file")


def test_a_redirect_out_of_tls_is_not_followed(
    opened: Opened, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    location = {"Location": "http://127.0.0.1:1/file?s3cret"}
    with answering(lambda _: Answer(302, location), tls_of(certificate)) as server:
        error = failure_of(opened(server.url).read_bytes, "file")

    assert str(error) == (
        "Storage 'http': read 'file': the server redirects from https to http://127.0.0.1:1/file, which "
        "nothing protects: if that is what you want, use that address itself"
    )


def test_https_to_a_port_without_tls_says_so(http: HttpServer, opened: Opened) -> None:
    storage = Storage(opened(http.url.replace("http:", "https:")).provider, retries=RetryPolicy(attempts=1))
    error = failure_of(storage.read_bytes, "file")

    assert str(error).startswith("Storage 'http': read 'file': TLS failed: ")
    assert str(error).endswith(": does this port speak https?")


def test_a_proxy_of_the_environment_is_used(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: Answer(body=b"by proxy")) as proxy:
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", proxy.url)
        assert b"by proxy" == opened("http://no-such-host.invalid/").read_bytes("file")

    assert ["GET http://no-such-host.invalid/file"] == proxy.lines
