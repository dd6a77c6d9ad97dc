"""The kernel's own answers to the deciding hooks, asked after every plugin's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_kernel.contracts import Outcome, RunRequest
    from synapse_kernel.kernel import Kernel


class KernelDefaults:
    """A plugin like any other, but registered first and with ``trylast``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @hookimpl(trylast=True)
    def synapse_choose_executor(self, request: RunRequest, available: Mapping[str, str]) -> str:
        """Take the executor that was asked for, else one that serves the action's method, else ``local``."""
        if request.executor is not None:
            return request.executor
        method = request.action.method
        if method is None:
            return self._kernel.settings.kernel.executor or "local"
        return self._kernel.executor_for(method, available)

    @hookimpl(trylast=True)
    def synapse_run(self, request: RunRequest) -> Outcome:
        """Run the attempts on the executor that was chosen."""
        from synapse_kernel.runs import attempt_all

        return attempt_all(self._kernel, self._kernel.live_runs[request.run_id])
