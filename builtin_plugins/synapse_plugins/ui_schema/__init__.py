"""Forms from params models: the UI schema dialects `json` and `formkit`."""

from __future__ import annotations

from synapse_kernel.hookspecs import hookimpl
from synapse_kernel.specs import SchemaSpec


@hookimpl
def synapse_register_schemas() -> list[SchemaSpec]:
    """Register both."""
    return [
        SchemaSpec(
            name="json",
            target="synapse_plugins.ui_schema.json_schema:to_json_schema",
            summary="JSON Schema 2020-12, as it is",
        ),
        SchemaSpec(
            name="formkit",
            target="synapse_plugins.ui_schema.formkit:to_formkit",
            summary="FormKit schema: the nodes of a form, for FormKit's free inputs",
        ),
    ]
