"""Forms as the kernel's `formkit` dialect makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import create_model

from synapse_kernel import Kernel
from synapse_kernel.models import schema_of

Node = dict[str, Any]


@pytest.fixture
def form(kernel: Kernel) -> Callable[[object], list[Node]]:
    """Return a function that makes the form of a model or another type."""
    dialect = kernel.resolve("schemas", "formkit")
    return lambda model: dialect(schema_of(model))


@pytest.fixture
def nodes(form: Callable[[object], list[Node]]) -> Callable[..., list[Node]]:
    """Return a function that makes the nodes of one field `it`, of a type and with a default."""

    def make(annotation: Any, default: Any = ...) -> list[Node]:
        return form(create_model("Params", it=(annotation, default)))

    return make


@pytest.fixture
def node(nodes: Callable[..., list[Node]]) -> Callable[..., Node]:
    """Return a function that makes the only node of one field `it`."""

    def make(annotation: Any, default: Any = ...) -> Node:
        (only,) = nodes(annotation, default)
        return only

    return make


@pytest.fixture
def inside() -> Callable[[Node], list[Node]]:
    """Return a function that gives what is in a fieldset, but for its legend and help."""

    def content(node: Node) -> list[Node]:
        (fieldset,) = node["children"]
        assert "fieldset" == fieldset["$el"]
        return [child for child in fieldset["children"] if child.get("$el") not in ("legend", "p")]

    return content
