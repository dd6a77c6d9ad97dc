"""The executor `local`: the action runs in the kernel's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.striking import ThreadJob
from synapse_kernel.worker import execute

if TYPE_CHECKING:
    from synapse_kernel.contracts import Outcome, Send, Task
    from synapse_kernel.emitter import CancelToken
    from synapse_kernel.kernel import Kernel


class LocalExecutor:
    """
    Runs tasks in this process: at once in the caller's thread (`run`), or in a thread of their own.

    Exceptions keep their traceback and results may be any object.
    """

    in_process = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def run(self, task: Task, send: Send | None, token: CancelToken) -> Outcome:
        """Run the task in this thread."""
        pulse = self._kernel.pulse if send is not None else None
        return execute(task, send, token, kernel=self._get_kernel, pulse=pulse)

    def submit(self, task: Task, send: Send) -> ThreadJob:
        """Run the task in a thread of its own."""
        return ThreadJob(self.run, task, send)

    def shutdown(self) -> None:
        """Do nothing: each job ends with its run."""

    def _get_kernel(self) -> Kernel:
        return self._kernel
