"""The provider `s3` against s3fs and boto3 as they come, over the same servers, in the same run."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from figures import Figure, at_least, at_most, at_most_of, seconds_of

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.storage_servers.proxies import delay_proxy
from tests.storage_servers.s3 import S3Server, moto_server, rclone_server

from synapse_kernel.storage import Storage
from synapse_kernel.storage.providers import configured

FILES = 200
SIZE = 100_000
LISTED = 3_000
LARGE = 512 << 20
DELAY = 20.0

# In a process of its own: what it needs at most is what it needed for this, and for the interpreter.
MEASURED = """
import resource, sys, time
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = most()
sys.path.insert(0, sys.argv[1])
import storing_s3
move = storing_s3.MOVERS[sys.argv[2]](*sys.argv[3:6])
start = time.perf_counter()
move(sys.argv[6], sys.argv[7], sys.argv[8])
print(time.perf_counter() - start, most() - before)
"""

Mover = Callable[[str, str, str], object]


def figures() -> list[Figure]:
    """Measure each."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tree = place / "tree"
        tree.mkdir()
        for number in range(FILES):
            (tree / f"{number:03}.bin").write_bytes(os.urandom(SIZE))
        for kind in (moto_server, rclone_server):
            inner = place / kind.__name__
            inner.mkdir()
            with kind(inner) as server:
                found += _many(server, tree, place, 0.0, (1.0, 1.0))
                with delay_proxy(server.port, DELAY) as proxy:
                    found += _many(server.through(proxy.port), tree, place, DELAY, (4.0, 2.5))
                found += _listing(server)
                found += _large(server, place)
    return found


def storage_of(endpoint_url: str, key: str, secret: str, bucket: str) -> Storage:
    """Return a bucket as the project opens it."""
    from synapse_plugins.storage.s3.provider import S3Provider

    values = {"endpoint_url": endpoint_url, "access_key": key, "secret_key": secret, "bucket_name": bucket}
    return Storage(S3Provider(configured(S3Provider, values)))


def _s3fs(endpoint_url: str, key: str, secret: str) -> object:
    import s3fs

    return s3fs.S3FileSystem(
        key=key, secret=secret, endpoint_url=endpoint_url, skip_instance_cache=True, use_listings_cache=False
    )


def _many(
    server: S3Server, tree: Path, place: Path, delay: float, targets: tuple[float, float]
) -> list[Figure]:
    asked = (server.endpoint_url, server.access_key, server.secret_key)
    bucket = server.make_bucket()
    ours, theirs = storage_of(*asked, bucket), _s3fs(*asked)
    numbers = count()
    wide = f"{server.name}, {delay:g} ms" if delay else server.name

    def fresh() -> Path:
        return place / f"got{next(numbers)}"

    put = _paired(
        lambda: theirs.put(f"{tree}/", f"{bucket}/theirs{next(numbers)}/", recursive=True),
        lambda: ours.upload(tree, f"ours{next(numbers)}"),
    )
    ours.upload(tree, "there")
    get = _paired(
        lambda: theirs.get(f"{bucket}/there/", f"{fresh()}/", recursive=True),
        lambda: ours.download("there", fresh()),
    )
    return [
        at_least(f"{name} {FILES} files of 100 kB ({wide})", ratio, target, "x", f"s3fs {seconds:.2f} s")
        for name, (ratio, seconds), target in (("put", put, targets[0]), ("get", get, targets[1]))
    ]


def _listing(server: S3Server) -> list[Figure]:
    asked = (server.endpoint_url, server.access_key, server.secret_key)
    bucket = server.make_bucket()
    ours = storage_of(*asked, bucket)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(LISTED):
            (Path(folder) / f"{number:06}").write_bytes(b"x")
        ours.upload(folder, "folder")

    def theirs() -> None:
        # A new one: it is to ask the server, and remembers in spite of what it was told.
        assert LISTED == len(_s3fs(*asked).find(f"{bucket}/folder"))  # type: ignore[attr-defined]

    def here() -> None:
        assert LISTED == sum(1 for _ in ours.list("folder", recursive=True))

    ratio, seconds = _paired(theirs, here)
    return [at_least(f"list {LISTED:,} keys ({server.name})", ratio, 3.0, "x", f"s3fs {seconds:.2f} s")]


def _large(server: S3Server, place: Path) -> list[Figure]:
    source = place / "large"
    if not source.exists():
        with source.open("wb") as file:
            for _ in range(LARGE >> 20):
                file.write(os.urandom(1 << 20))
    bucket = server.make_bucket()
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for _ in range(3):
        for name in MOVERS:
            for way in ("put", "get"):
                measured = _measured(server, name, bucket, way, str(source))
                found.setdefault(way, {}).setdefault(name, []).append(measured)
    server.client.delete_object(Bucket=bucket, Key="large")
    figures = []
    for way, by_name in found.items():
        seconds = {name: min(time for time, _ in times) for name, times in by_name.items()}
        memory = statistics.median(most for _, most in by_name["ours"])
        figures += [
            at_most(
                f"{way} one file of 512 MiB ({server.name}), against {name}",
                seconds["ours"] / seconds[name], 1.1, f"{name} {seconds[name]:.2f} s",
            )
            for name in ("s3fs", "boto3")
        ]  # fmt: skip
        figures.append(
            at_most_of(
                f"{way} one file of 512 MiB ({server.name}), memory", memory, "MiB", 150, "the interpreter"
            )
        )
    return figures


def _measured(server: S3Server, name: str, bucket: str, way: str, source: str) -> tuple[float, float]:
    command = [sys.executable, "-c", MEASURED, str(Path(__file__).parent), name, server.endpoint_url]
    command += [server.access_key, server.secret_key, bucket, way, source]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, most = ended.stdout.split()
    return float(seconds), float(most)


@contextlib.contextmanager
def _target(source: str) -> Iterator[str]:
    path = Path(f"{source}.got")
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _ours(endpoint_url: str, key: str, secret: str) -> Mover:
    # Imported before the clock runs, as s3fs and boto3 are.
    import synapse_plugins.storage.s3.provider  # noqa: F401

    def move(bucket: str, way: str, source: str) -> None:
        storage = storage_of(endpoint_url, key, secret, bucket)
        with _target(source) as target:
            if way == "put":
                storage.upload(source, "large")
            else:
                storage.download("large", target)

    return move


def _with_s3fs(endpoint_url: str, key: str, secret: str) -> Mover:
    theirs = _s3fs(endpoint_url, key, secret)

    def move(bucket: str, way: str, source: str) -> None:
        with _target(source) as target:
            if way == "put":
                theirs.put(source, f"{bucket}/large")  # type: ignore[attr-defined]
            else:
                theirs.get(f"{bucket}/large", target)  # type: ignore[attr-defined]

    return move


def _with_boto3(endpoint_url: str, key: str, secret: str) -> Mover:
    import boto3

    session = boto3.session.Session(key, secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint_url)

    def move(bucket: str, way: str, source: str) -> None:
        with _target(source) as target:
            if way == "put":
                client.upload_file(source, bucket, "large")
            else:
                client.download_file(bucket, "large", target)

    return move


MOVERS: dict[str, Callable[[str, str, str], Mover]] = {
    "ours": _ours, "s3fs": _with_s3fs, "boto3": _with_boto3,
}  # fmt: skip


def _paired(theirs: Callable[[], object], ours: Callable[[], object], pairs: int = 5) -> tuple[float, float]:
    """Run both in turn; return the median of how many times their rate ours is, and their seconds."""
    theirs()
    ours()
    times = []
    for _ in range(pairs):
        times.append((seconds_of(theirs), seconds_of(ours)))
        time.sleep(0.1)
    return statistics.median(a / b for a, b in times), statistics.median(a for a, _ in times)
