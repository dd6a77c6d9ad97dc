"""The built-in plugins of synapse-kernel, one folder each; none imports another."""
