"""The contract of executors, held by those on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from tests.plugins.ray_executors.heads import Head

from synapse_kernel import Kernel
from synapse_kernel.testing.executor import ExecutorContract


class RayContract(ExecutorContract):
    patience = 120.0

    @pytest.fixture
    def make_kernel(
        self, ray_kernel: Callable[[Mapping[str, object]], Kernel]
    ) -> Callable[[Mapping[str, object]], Kernel]:
        return ray_kernel


class TestRayTask(RayContract):
    executor_name = "ray-task"


class TestRayActor(RayContract):
    executor_name = "ray-actor"


@pytest.mark.slow
class TestRayJob(ExecutorContract):
    executor_name = "ray-job"
    patience = 120.0
    many = 4

    @pytest.fixture
    def make_kernel(self, head: Head) -> Iterator[Callable[[Mapping[str, object]], Kernel]]:
        section = {"address": head.url, "token_path": str(head.token)}
        made: list[Kernel] = []

        def make(settings: Mapping[str, object]) -> Kernel:
            made.append(Kernel({**settings, "ray": section}, strict=True))
            return made[-1]

        yield make
        for kernel in made:
            kernel.shutdown()
