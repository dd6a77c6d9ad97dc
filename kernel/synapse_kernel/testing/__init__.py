"""What tests of plugins and actions use; imported by name, never loaded by itself."""

from synapse_kernel.testing.sinks import RecordedSink

__all__ = ["RecordedSink"]
