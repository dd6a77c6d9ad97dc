"""
The descriptors that plugins return from `synapse_register_*` hooks.

All have one shape: a `name`, the `target` (``module:attribute``) that is imported on first use, a
`summary` for listings, the packages it `requires` and the `extra` of its distribution that brings them.
"""

from __future__ import annotations

import msgspec


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What every contribution has in common."""

    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    """Import names that must be there for the target to work; looked for without importing them."""
    extra: str | None = None
    """What to add to ``pip install 'distribution[…]'`` to get them."""


class ActionsSpec(Spec, frozen=True, kw_only=True):
    """An action plugin that an installed package ships; `target` is its module, or its package folder's."""


class ExecutorSpec(Spec, frozen=True, kw_only=True):
    """Where tasks run; `methods` lists the config methods (local, task, job, serve) it serves."""

    methods: tuple[str, ...] = ()
    lasting: bool = False
    """True if its jobs outlive the process that submits them: it is a `LastingExecutor`."""
    pipelines: bool = False
    """True if it runs whole pipelines elsewhere, and no actions: a `PipelineHost` named ``NAME-pipeline``."""


class SinkSpec(Spec, frozen=True, kw_only=True):
    """Where events go; the target is called as ``target(run, argument)`` once a run."""


class StoreSpec(Spec, frozen=True, kw_only=True):
    """A run store; `schemes` are the URL schemes it answers to."""

    schemes: tuple[str, ...] = ()


class StorageSpec(Spec, frozen=True, kw_only=True):
    """A storage provider, a `Provider` class; `schemes` are its URL schemes, `aliases` its other names."""

    schemes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class FormatSpec(Spec, frozen=True, kw_only=True):
    """A dataset format; `reader`, `writer` and `converters` name what it can do as targets."""

    reader: str | None = None
    writer: str | None = None
    converters: dict[str, str] = {}


class ServiceSpec(Spec, frozen=True, kw_only=True):
    """A client that actions find on their context under `name`; the target is called with the context."""


class IntegrationSpec(Spec, frozen=True, kw_only=True):
    """An ML framework that `autolog` knows; the target is called with the context."""


class SchemaSpec(Spec, frozen=True, kw_only=True):
    """A UI schema dialect; the target is called with the JSON Schema."""


class TemplateSpec(Spec, frozen=True, kw_only=True):
    """A project template for `new`."""


class CommandSpec(Spec, frozen=True, kw_only=True):
    """A command of the command line; `summary` is its line in ``--help``, shown without importing it."""
