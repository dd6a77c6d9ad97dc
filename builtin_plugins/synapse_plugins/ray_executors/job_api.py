"""The Jobs API of a Ray cluster: HTTP to its dashboard, each call bounded, each failure told in our words."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import ray
import requests
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from synapse_kernel.errors import SynapseError, UsageError
from synapse_plugins.ray_executors.connection import ClusterError, connect
from synapse_plugins.ray_executors.settings import RaySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from synapse_kernel.kernel import Kernel

_HTTP = ("http://", "https://")
ENDED = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})


# They tell of each upload, to whom it may concern.
for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class JobExistsError(SynapseError):
    """A job of this id was submitted before, and its id is not given again."""

    exit_code = 1


class JobNotFoundError(SynapseError):
    """The cluster knows no such job."""


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """What Ray says of a job: `status` is one of PENDING, RUNNING, STOPPED, SUCCEEDED and FAILED."""

    job_id: str
    status: str
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None
    metadata: dict[str, str] = {}

    @property
    def ended(self) -> bool:
        """True when its process is gone, or never came."""
        return self.status in ENDED


class JobsApi:
    """The Jobs API at a dashboard's URL; raises `ClusterError` where it does not answer in time."""

    def __init__(self, url: str, settings: RaySettings) -> None:
        self.url = url.rstrip("/")
        self.timeout = settings.connect_timeout
        with self._told():
            self._client = _Client(self.url, _headers(settings), self.timeout)
            version = self._client.ray_version()
        if version is None:
            raise self._no_jobs_api("it tells no version of Ray")

    def submit(
        self,
        job_id: str,
        entrypoint: str,
        runtime_env: dict[str, object],
        metadata: dict[str, str],
        demand: Mapping[str, float],
    ) -> None:
        """Upload what is not there yet and submit; raises `JobExistsError` for an id that was used before."""
        custom = {name: amount for name, amount in demand.items() if name not in {"CPU", "GPU", "memory"}}
        try:
            with self._told():
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env=runtime_env,
                    metadata=metadata,
                    entrypoint_num_cpus=demand.get("CPU"),
                    entrypoint_num_gpus=demand.get("GPU"),
                    entrypoint_memory=int(demand["memory"]) if "memory" in demand else None,
                    entrypoint_resources=custom or None,
                )
        except _AnswerError as error:
            if "already exists" in error.text:
                raise JobExistsError(
                    f"The Ray cluster at {self.url} has a job {job_id} already\n"
                    "  this attempt of the run was submitted before: attach to it, or run under another id"
                ) from None
            raise self._refused(error) from None

    def state(self, job_id: str) -> JobState | None:
        """Return what Ray says of a job, or None if it knows none of this id."""
        try:
            with self._told():
                return _state_of(self._client.get_job_info(job_id))
        except _AnswerError as error:
            if error.status == requests.codes.not_found:
                return None
            raise self._refused(error) from None

    def states(self) -> list[JobState]:
        """Return what Ray says of all jobs that were submitted."""
        with self._answered():
            return [_state_of(job) for job in self._client.list_jobs() if job.submission_id]

    def log(self, job_id: str) -> str:
        """Return all that a job's log holds."""
        with self._answered():
            return self._client.get_job_logs(job_id)

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        """Yield a job's log from its start, in pieces, until the job has ended; about a second late."""
        async for piece in self._client.tail_job_logs(job_id):
            yield piece

    def stop(self, job_id: str) -> bool:
        """Ask Ray to stop a job; False if it has ended."""
        with self._answered():
            return bool(self._client.stop_job(job_id))

    def nodes(self) -> list[Mapping[str, float]]:
        """Return what each node that is alive has."""
        with self._answered():
            return self._client.nodes()

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            with self._told():
                yield
        except _AnswerError as error:
            raise self._refused(error) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            wrong = "Authentication failed" in str(error)
            raise ClusterError(
                f"The Ray cluster at {self.url} {'refuses the token' if wrong else 'asks for a token'}\n"
                "  name the file that holds it with: --set ray.token_path=FILE",
                address=self.url,
            ) from None
        except requests.exceptions.JSONDecodeError:
            raise self._no_jobs_api("its answer is not JSON") from None
        except requests.exceptions.Timeout:
            raise self._unreachable(f"no answer within {self.timeout:g} s") from None
        except (requests.exceptions.RequestException, ConnectionError) as error:
            raise self._unreachable(_reason(error)) from None

    def _unreachable(self, reason: str) -> ClusterError:
        return ClusterError(
            f"No Ray dashboard answers at {self.url}: {reason}\n"
            "  start a cluster with: ray start --head\n"
            "  name the dashboard of another with: --set ray.address=http://HOST:8265",
            address=self.url,
        )

    def _no_jobs_api(self, reason: str) -> ClusterError:
        return ClusterError(
            f"What answers at {self.url} is no Ray dashboard that takes jobs: {reason}\n"
            "  give the URL that `ray start --head` prints for the dashboard; its machine needs ray[default]",
            address=self.url,
        )

    def _refused(self, error: _AnswerError) -> ClusterError:
        lines = [line for line in error.text.splitlines() if line.strip()]
        return ClusterError(
            f"The Ray cluster at {self.url} answers with HTTP {error.status}: {lines[-1] if lines else ''}",
            address=self.url,
        )


def dashboard_url(kernel: Kernel, user: object) -> str:
    """
    Return the URL of the dashboard of the cluster that the settings name; a cluster is started if need be.

    Where the process has to be connected for that, it is for `user`, until `release`.

    Raises `ClusterError` for a cluster that does not answer, or has no dashboard.
    """
    settings = kernel.settings.section("ray", RaySettings)
    address = settings.address
    if address in {None, "auto"}:
        named = (os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
        address = next((url for url in named if url and url.startswith(_HTTP)), address)
    if address is not None and address.startswith(_HTTP):
        return address
    found = connect(kernel, user, dashboard=True)
    if found.dashboard is None:
        raise ClusterError(
            f"The Ray cluster at {found.address} has no dashboard, which is what takes jobs\n"
            "  start its head with ray[default] installed, and without --include-dashboard=false",
            address=found.address,
        )
    return f"http://{found.dashboard}"


class _AnswerError(Exception):
    """An answer that says no."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class _Client(JobSubmissionClient):
    """
    Ray's client, with what it has no public way for: calls that end, and the address that it is given.

    Its own constructor prefers the variable RAY_ADDRESS, and none of its calls has a time-out.
    """

    def __init__(self, url: str, headers: dict[str, str], timeout: float) -> None:
        SubmissionClient.__init__(self, address=url, headers=headers)
        self._client_ray_version = ray.__version__
        # Its own None is deprecated by aiohttp, and means the same.
        self._ssl_context = True  # type: ignore[assignment]
        self._timeout = timeout

    def ray_version(self) -> str | None:
        """Return the cluster's version of Ray; None if what answers is something else."""
        answer = self._do_request("GET", "/api/version")
        if not answer.ok:
            return None
        told = answer.json()
        return told.get("ray_version") if isinstance(told, dict) else None

    def nodes(self) -> list[Mapping[str, float]]:
        """Return what each node that is alive has, from the API that `ray list nodes` asks."""
        answer = self._do_request("GET", "/api/v0/nodes")
        if not answer.ok:
            self._raise_error(answer)
        rows = answer.json()["data"]["result"]["result"]
        return [row["resources_total"] for row in rows if row["state"] == "ALIVE"]

    def _do_request(
        self,
        method: str,
        endpoint: str,
        *,
        data: bytes | None = None,
        json_data: dict[str, object] | None = None,
        **options: object,
    ) -> requests.Response:
        return super()._do_request(
            method, endpoint, data=data, json_data=json_data, timeout=self._timeout, **options
        )

    def _raise_error(self, r: requests.Response) -> None:
        raise _AnswerError(r.status_code, r.text)


def _headers(settings: RaySettings) -> dict[str, str]:
    """Return the token that the settings name; without one, Ray's client adds what its own variables say."""
    if settings.token_path is None:
        return {}
    try:
        token = Path(settings.token_path).expanduser().read_text().strip()
    except OSError as error:
        raise UsageError(
            f"ray.token_path: {settings.token_path} cannot be read: {error.strerror or error}"
        ) from None
    return {"Authorization": f"Bearer {token}"}


def _state_of(job: object) -> JobState:
    told = cast("_Details", job)
    return JobState(
        job_id=told.submission_id or "",
        status=str(told.status),
        message=told.message or "",
        error_type=told.error_type or "",
        exit_code=told.driver_exit_code,
        metadata=told.metadata or {},
    )


class _Details(msgspec.Struct):
    """What is read of Ray's `JobDetails`."""

    submission_id: str | None
    status: object
    message: str | None
    error_type: str | None
    driver_exit_code: int | None
    metadata: dict[str, str] | None


def _reason(error: BaseException) -> str:
    """Return the system's own words of what lies behind an error of a connection."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0] or type(error).__name__
