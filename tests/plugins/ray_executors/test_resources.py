"""What a task asks for, and how a person is told that it has to wait or never can begin."""

from __future__ import annotations

import pytest

from synapse_kernel.contracts import Resources
from synapse_plugins.ray_executors.resources import (
    GIB,
    demand_of,
    is_possible,
    ray_options,
    shortage,
    told,
    waiting_for,
)

NODE = {"CPU": 8.0, "GPU": 1.0, "memory": 16.0 * GIB, "object_store_memory": 1.0, "node:10.0.0.1": 1.0}


@pytest.mark.parametrize(
    ("resources", "demand"),
    [
        (Resources(), {"CPU": 1}),
        (Resources(cpus=0), {}),
        (Resources(cpus=0.5, gpus=2), {"CPU": 0.5, "GPU": 2}),
        (Resources(memory=GIB), {"CPU": 1, "memory": GIB}),
        (Resources(custom={"tpu": 4, "none": 0}), {"CPU": 1, "tpu": 4}),
    ],
)
def test_a_demand_has_rays_names(resources: Resources, demand: dict[str, float]):
    assert demand == demand_of(resources)


@pytest.mark.parametrize(
    ("demand", "options"),
    [
        ({}, {"num_cpus": 0}),
        ({"CPU": 2, "GPU": 0.5}, {"num_cpus": 2, "num_gpus": 0.5}),
        ({"CPU": 1, "memory": 2.0 * GIB}, {"num_cpus": 1, "memory": 2 * GIB}),
        ({"CPU": 1, "tpu": 4}, {"num_cpus": 1, "resources": {"tpu": 4}}),
    ],
)
def test_options_are_those_of_a_ray_task(demand: dict[str, float], options: dict[str, object]):
    assert options == ray_options(demand, "pack")
    assert {**options, "scheduling_strategy": "SPREAD"} == ray_options(demand, "spread")


def test_one_node_must_have_all_that_is_asked():
    assert is_possible({"CPU": 8, "GPU": 1}, [NODE])
    assert not is_possible({"CPU": 9}, [NODE, NODE])
    assert not is_possible({"CPU": 1, "tpu": 1}, [NODE, {"tpu": 4.0}])
    assert is_possible({}, [NODE])
    assert not is_possible({}, [])


def test_a_shortage_is_told_with_what_each_node_has():
    assert (
        "it asks for 1 CPU, 4 tpu, which no node of the cluster has\n"
        "  1 node has 8 CPUs, 0 tpu, 1 GPU, 16 GiB of memory\n"
        "  1 node has 2 CPUs, 1 tpu"
    ) == shortage({"CPU": 1, "tpu": 4}, [NODE, {"CPU": 2.0, "tpu": 1.0}])


def test_nodes_that_are_alike_are_told_once():
    lines = shortage({"CPU": 9}, [NODE, {"CPU": 2.0}, NODE]).splitlines()

    assert ["  2 nodes have 8 CPUs, 1 GPU, 16 GiB of memory", "  1 node has 2 CPUs"] == lines[1:]


def test_of_many_kinds_of_nodes_some_are_told():
    lines = shortage({"CPU": 9}, [{"CPU": float(count)} for count in range(1, 9)]).splitlines()

    assert 7 == len(lines)
    assert "  and others" == lines[-1]


def test_a_cluster_without_nodes_says_so():
    assert "it asks for 1 CPU, and the cluster has no node that is alive" == shortage({"CPU": 1}, [])


@pytest.mark.parametrize(
    ("demand", "available", "reason"),
    [
        ({"CPU": 4}, {"CPU": 1.5}, "waiting for 4 CPUs: 6.5 of 8 in use"),
        ({"CPU": 1, "GPU": 1}, {"CPU": 2.0}, "waiting for 1 GPU: 1 of 1 in use"),
        (
            {"CPU": 1, "memory": 4.0 * GIB},
            {"memory": 3.5 * GIB},
            "waiting for 1 CPU: 8 of 8 in use, 4 GiB of memory: 12.5 GiB of 16 GiB in use",
        ),
        ({"CPU": 1}, {"CPU": 8.0}, "waiting for a worker to start"),
    ],
)
def test_why_a_run_waits_is_told_by_what_is_in_use(
    demand: dict[str, float], available: dict[str, float], reason: str
):
    assert reason == waiting_for(demand, NODE, available)


def test_amounts_are_told_as_a_person_reads_them():
    assert "1 CPU, 2 GPUs, 0.5 tpu, 1.5 GiB of memory" == told(
        {"CPU": 1.0, "GPU": 2.0, "tpu": 0.5, "memory": 1.5 * GIB}
    )
    assert "nothing" == told({})
