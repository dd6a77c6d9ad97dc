"""The commands of `synapse-kernel storage`, a module each."""
