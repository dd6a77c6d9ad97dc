"""The token by which a Ray cluster knows who may use it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from synapse_kernel.errors import UsageError
from synapse_plugins.ray_executors.heads import read_variables

if TYPE_CHECKING:
    from synapse_plugins.ray_executors.settings import RaySettings


def use_token(settings: RaySettings) -> None:
    """
    Let Ray find the cluster's token where the settings name a file.

    It holds for this process and those that it starts. Raises `UsageError` if the file is not there.
    """
    if settings.token_path is None:
        return
    path = os.path.expanduser(settings.token_path)  # noqa: PTH111 - Ray takes text
    if not os.path.isfile(path):  # noqa: PTH113
        raise UsageError(f"ray.token_path: there is no file {settings.token_path}")
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": path}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        if "ray" in sys.modules:
            read_variables()
