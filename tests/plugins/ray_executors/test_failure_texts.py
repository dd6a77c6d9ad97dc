"""What a person reads of Ray's exceptions: one short sentence; the rest is output."""

from __future__ import annotations

import pytest
from ray import exceptions

from synapse_plugins.ray_executors.failures import error_of

LONG = "The worker died unexpectedly.\n" + "\n".join(f"line {number}" for number in range(40))


@pytest.mark.parametrize(
    ("error", "kind", "name", "message"),
    [
        (
            exceptions.WorkerCrashedError(),
            "crash",
            "WorkerCrashed",
            "the worker process ended before the action did",
        ),
        (
            exceptions.OutOfMemoryError("Task was killed due to the node running low on memory."),
            "crash",
            "OutOfMemory",
            "Ray ended the worker: its node ran out of memory",
        ),
        (
            exceptions.NodeDiedError("The node died."),
            "crash",
            "NodeDied",
            "the node that ran it has left the cluster",
        ),
        (
            exceptions.ActorUnavailableError("gone", None),
            "crash",
            "WorkerLost",
            "the worker cannot be reached any more",
        ),
        (
            exceptions.TaskUnschedulableError("no such node"),
            "executor",
            "Unschedulable",
            "The task is not schedulable: no such node",
        ),
        (
            exceptions.RuntimeEnvSetupError("pip failed"),
            "executor",
            "RuntimeEnvFailed",
            "the run's environment could not be set up on the cluster",
        ),
    ],
)
def test_each_exception_has_its_sentence(error: Exception, kind: str, name: str, message: str):
    told = error_of(error)

    assert (kind, name, message) == (told.kind, told.type, told.message)
    assert "\n" not in told.message


def test_what_ray_says_besides_is_output_and_its_end_alone():
    told = error_of(exceptions.RaySystemError(LONG))

    assert "\n" not in told.message
    assert 20 == len(told.output.splitlines())
    assert told.output.endswith("line 39")


def test_colours_are_taken_out():
    assert "\x1b" not in error_of(exceptions.NodeDiedError("\x1b[36mThe node\x1b[0m died")).output
