"""The kernel that what runs here belongs to, for what is asked without one: `get_storage`, storage paths."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_kernel.kernel import Kernel

current_kernel: ContextVar[Callable[[], Kernel] | None] = ContextVar("synapse_kernel", default=None)
"""Gives the kernel of the run, or of the params, that are being worked on; a worker makes it on first use."""


def kernel_here() -> Kernel:
    """Return the kernel of what runs here; else one with the settings that the command line would use."""
    given = current_kernel.get()
    return _own_kernel() if given is None else given()


@contextmanager
def working_for(kernel: Kernel) -> Iterator[None]:
    """Make a kernel the one of `kernel_here` for a while."""
    mark = current_kernel.set(lambda: kernel)
    try:
        yield
    finally:
        current_kernel.reset(mark)


@cache
def _own_kernel() -> Kernel:
    from synapse_kernel.kernel import Kernel
    from synapse_kernel.settings import load_settings

    return Kernel(load_settings())
