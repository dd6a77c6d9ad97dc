"""Kinds of contributions that no built-in plugin of the kernel's own tests brings: formats and dialects."""

from __future__ import annotations

from pathlib import Path

from synapse_kernel import FormatSpec, Kernel, SchemaSpec, hookimpl


class Labels:
    """A plugin with a format that it also recognises, and a dialect."""

    @hookimpl
    def synapse_register_formats(self) -> list[FormatSpec]:
        return [
            FormatSpec(
                name="labels",
                target="csv",
                reader="csv:DictReader",
                writer="csv:DictWriter",
                converters={"coco": "csv:reader"},
            )
        ]

    @hookimpl
    def synapse_detect_format(self, path: Path) -> str | None:
        return "labels" if path.suffix == ".csv" else None

    @hookimpl
    def synapse_register_schemas(self) -> list[SchemaSpec]:
        return [SchemaSpec(name="names", target="builtins:sorted", summary="the keys, sorted")]


def test_a_format_is_listed_with_what_it_can_do_and_recognised_by_its_plugin():
    with Kernel(entry_points=[], plugins=[Labels()]) as kernel:
        (found,) = kernel.contributions("formats")

        assert isinstance(found.spec, FormatSpec)
        assert ("csv:DictReader", "csv:DictWriter") == (found.spec.reader, found.spec.writer)
        assert {"coco": "csv:reader"} == found.spec.converters
        assert found.spec.name == kernel.detect_format(Path("a.csv"))


def test_a_dialect_is_resolved_to_what_turns_a_schema_into_another():
    with Kernel(entry_points=[], plugins=[Labels()]) as kernel:
        convert = kernel.resolve("schemas", "names")

        assert callable(convert)
        assert ["a", "b"] == convert({"b": 1, "a": 2})
