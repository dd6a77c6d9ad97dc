"""Looking after runs that go on elsewhere, for as long as a command is about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel.contracts import ErrorInfo
from synapse_kernel.detaching import record_crash
from synapse_kernel.stores import RunBusyError

if TYPE_CHECKING:
    from synapse_kernel.detaching import AttachedRun
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.stores import RunRecord, RunStore


class Attendant:
    """
    Attaches to a run whenever no process looks after it.

    What the run says comes into the store, and is read there. Of several commands one attaches; should it
    end, the next one does that looks.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._handle: AttachedRun | None = None

    def look(self, record: RunRecord) -> None:
        """Attach where that is needed; raises `SynapseError` if the run is not to be found, or was lost."""
        if self._handle is not None and self._handle.done:
            # What it raises is why it could not see the run through.
            self._handle.result()
            self._handle = None
        if self._handle is None and record.detached:
            try:
                self._handle = self._kernel.attach(record.run_id, sinks=())
            except RunBusyError:
                # Another command was faster.
                return

    def cancel(self, reason: str) -> None:
        """Stop the run, if this command attached to it."""
        if self._handle is not None:
            self._handle.cancel(reason=reason)

    def release(self) -> None:
        """Let the run go on without this command."""
        if self._handle is not None:
            self._handle.release()


def record_as_lost(kernel: Kernel, store: RunStore, run_id: str, why: Exception) -> None:
    """
    Record as crashed a run that goes on elsewhere and whose job is not found there.

    Raises `RunBusyError` if a process looks after it after all.
    """
    store.adopt(run_id, kernel.owner)
    error = ErrorInfo(type="RunLost", message=f"its job was not found: {why}", kind="crash")
    record_crash(store, run_id, error)
