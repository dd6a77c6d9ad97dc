"""The section `ray` of the settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from synapse_kernel.settings import Seconds

Placement = Literal["pack", "spread"]
Count = Annotated[int, msgspec.Meta(ge=1)]
MIB = 1024 * 1024


class RaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which cluster, and how runs use it."""

    address: str | None = None
    """
    ``auto`` (the one that Ray finds on this machine), ``local`` (a new one, for this process), ``host:port``,
    or a dashboard's ``http://`` URL, which serves `ray-job` alone.

    Unset is ``RAY_ADDRESS``, and ``local`` where that is not set either.
    """
    namespace: str = "synapse"
    """Where the names of detached actors are looked up."""
    token_path: str | None = None
    """A file with the cluster's token; unset leaves it to Ray's own ``RAY_AUTH_TOKEN`` and the like."""
    connect_timeout: Seconds = 30.0
    """Seconds in which a cluster must answer."""
    local_cpus: Count | None = None
    """CPUs of a cluster that is started; None for the machine's."""
    local_memory: int = 256 * MIB
    """Bytes of shared memory for objects in a cluster that is started."""
    placement: Placement = "pack"
    """``pack`` fills a node before the next, ``spread`` goes over all."""
    autoscaling: bool = False
    """True where nodes come when they are asked for: then nothing counts as impossible."""
    max_workers: Count | None = None
    """Warm actors of one environment at most; None for one for each CPU of the cluster."""
    idle_timeout: Seconds = 300.0
    """Seconds after which an idle actor goes."""
    runtime_env: dict[str, object] = {}
    """Ray's runtime environment for every run; the config's is laid over it."""
    upload_limit: int = 100 * MIB
    """Bytes that one upload may have; Ray's own limit is 100 MiB."""
    ship_code: bool | None = None
    """
    Whether workers get the kernel and its plugins as they are here.

    None: in a cluster that this process did not start.
    """
    storage: str | None = None
    """A storage URL that all nodes reach, for data between the nodes of a pipeline."""
    store: str | None = None
    """The run store of a pipeline's coordinator; None for the kernel's own where the cluster reaches it."""
    max_restarts: Annotated[int, msgspec.Meta(ge=0)] = 3
    """How often a pipeline's coordinator is started again after its process died."""
