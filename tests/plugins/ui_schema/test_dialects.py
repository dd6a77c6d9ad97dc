"""The dialects that the plugin contributes, as the kernel gives them."""

from __future__ import annotations

import json
import subprocess
import sys

from pydantic import BaseModel, Field

from synapse_kernel import Kernel
from synapse_kernel.models import schema_of


class Augment(BaseModel):
    """How images are changed."""

    flip: bool = False


class Params(BaseModel):
    epochs: int = Field(10, ge=1, le=300, description="Passes over the data.")
    weights: str
    augment: Augment = Augment()


def test_json_is_the_json_schema_as_it_is(kernel: Kernel) -> None:
    schema = schema_of(Params)

    assert schema == kernel.resolve("schemas", "json")(schema)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]


def test_formkit_is_a_list_of_nodes_in_the_order_of_the_fields(kernel: Kernel) -> None:
    made = kernel.resolve("schemas", "formkit")(schema_of(Params))

    assert [
        {
            "$formkit": "number",
            "name": "epochs",
            "label": "Epochs",
            "help": "Passes over the data.",
            "number": "integer",
            "min": 1,
            "max": 300,
            "step": 1,
            "value": 10,
            "validation": [["min", 1], ["max", 300]],
        },
        {"$formkit": "text", "name": "weights", "label": "Weights", "validation": [["required"]]},
        {
            "$formkit": "group",
            "name": "augment",
            "label": "Augment",
            "help": "How images are changed.",
            "children": [
                {
                    "$el": "fieldset",
                    "children": [
                        {"$el": "legend", "children": "Augment"},
                        {"$el": "p", "children": "How images are changed."},
                        {"$formkit": "checkbox", "name": "flip", "label": "Flip", "value": False},
                    ],
                }
            ],
        },
    ] == made


def test_a_form_is_json(kernel: Kernel) -> None:
    made = kernel.resolve("schemas", "formkit")(schema_of(Params))

    assert made == json.loads(json.dumps(made, allow_nan=False))


def test_the_schema_is_not_changed(kernel: Kernel) -> None:
    schema = schema_of(Params)
    before = json.dumps(schema)

    kernel.resolve("schemas", "formkit")(schema)

    assert before == json.dumps(schema)


def test_no_model_gives_an_empty_form(kernel: Kernel) -> None:
    assert [] == kernel.resolve("schemas", "formkit")(schema_of(None))


def test_a_type_that_is_no_model_gives_one_field_named_value(kernel: Kernel) -> None:
    made = kernel.resolve("schemas", "formkit")(schema_of(float))

    assert [
        {
            "$formkit": "number",
            "name": "value",
            "label": "Value",
            "number": "float",
            "step": "any",
            "validation": [["required"]],
        }
    ] == made


def test_the_dialects_are_listed_without_importing_what_makes_them() -> None:
    code = (
        "import sys; from synapse_kernel import Kernel\n"
        "with Kernel() as kernel: names = sorted(c.spec.name for c in kernel.contributions('schemas'))\n"
        "print(names, [m for m in sys.modules if m.startswith('synapse_plugins.ui_schema.')])"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "['formkit', 'json'] []" == printed.strip()
