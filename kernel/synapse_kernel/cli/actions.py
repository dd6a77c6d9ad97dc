"""The commands `actions` and `describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from synapse_kernel.cli.complete import complete_actions, complete_dialects
from synapse_kernel.cli.documents import dump, print_table, promise_json, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from synapse_kernel.actions import ActionCode
    from synapse_kernel.contracts import ActionSpec


@click.command(epilog="Example: synapse-kernel actions ./my_plugin")
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def actions(ctx: click.Context, target: str, as_json: bool) -> int:
    """
    List the actions of TARGET: a folder, a Python file, a module or an installed action plugin.

    The code of a folder is read, not run. Exits with 2 if a file of it does not parse.
    """
    state = state_of(ctx)
    if as_json:
        promise_json(state)
    plugin = state.kernel.discover(target)
    if as_json:
        click.echo(dump(plugin))
    elif not plugin.actions:
        click.echo(f"{target} has no actions.", err=True)
    else:
        rows = [
            (spec.name, spec.method or "local", spec.ref.entrypoint, spec.description)
            for spec in plugin.actions.values()
        ]
        print_table(("action", "method", "entrypoint", "description"), rows)
    for problem in plugin.problems:
        click.echo(f"Not read: {problem}", err=True)
    return 2 if plugin.problems else 0


@click.command(
    epilog="""\b
Examples:
  synapse-kernel describe ./my_plugin train
  synapse-kernel describe ./my_plugin train --schema formkit > form.json
"""
)
@click.argument("target")
@click.argument("action", shell_complete=complete_actions)
@click.option("--schema", "dialect", metavar="DIALECT", shell_complete=complete_dialects,
              help="Print the params as a schema: json, formkit, or what a plugin adds.")  # fmt: skip
@click.option("--result", "of_result", is_flag=True, help="With --schema: of the result instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def describe(
    ctx: click.Context,
    target: str,
    action: str,
    dialect: str | None,
    of_result: bool,
    as_json: bool,
) -> None:
    """Show what ACTION of TARGET takes and gives: types, defaults, limits and meanings."""
    from synapse_kernel.models import schema_of
    from synapse_kernel.preparation import resolve_action

    state = state_of(ctx)
    if as_json or dialect:
        promise_json(state)
    kernel = state.kernel
    _, spec, code = resolve_action(kernel, target, action)
    if dialect is not None:
        convert = cast("Callable[[Mapping[str, object]], object]", kernel.resolve("schemas", dialect))
        click.echo(dump(convert(schema_of(code.result_type if of_result else code.params_type))))
        return
    if as_json:
        click.echo(dump(_document(spec, code)))
        return
    _print_heading(spec, code)
    _print_fields("Params", schema_of(code.params_type), spec.params)
    if code.result_type is not None:
        _print_fields("Result", schema_of(code.result_type), {})


def _document(spec: ActionSpec, code: ActionCode) -> dict[str, object]:
    from synapse_kernel.models import schema_of

    return {
        "name": spec.name,
        "description": spec.description or code.description,
        "entrypoint": spec.ref.entrypoint,
        "folder": spec.ref.folder,
        "method": spec.method or "local",
        "category": spec.category or code.category,
        "input_type": spec.input_type or code.input_type,
        "output_type": spec.output_type or code.output_type,
        "defaults": spec.params,
        "resources": spec.resources,
        "params": schema_of(code.params_type),
        "result": schema_of(code.result_type),
    }


def _print_heading(spec: ActionSpec, code: ActionCode) -> None:
    description = spec.description or code.description
    click.echo(f"{spec.name}{f': {description}' if description else ''}")
    click.echo(f"  code      {spec.ref.entrypoint}")
    click.echo(f"  method    {spec.method or 'local'}")
    for label, value in (
        ("category", spec.category or code.category),
        ("takes", spec.input_type or code.input_type),
        ("gives", spec.output_type or code.output_type),
    ):
        if value:
            click.echo(f"  {label:<9} {value}")


def _print_fields(title: str, schema: Mapping[str, object], defaults: Mapping[str, object]) -> None:
    click.echo(f"\n{title}")
    if not schema:
        click.echo("  any mapping" if title == "Params" else "  anything")
        return
    rows = list(_rows(schema, schema, "", defaults))
    if rows:
        print_table(("name", "type", "default", "limits", "meaning"), rows)
    else:
        click.echo(f"  {_type_of(schema, schema)}" if schema.get("type") != "object" else "  none")


def _rows(
    schema: Mapping[str, object], root: Mapping[str, object], prefix: str, defaults: Mapping[str, object]
) -> Iterator[tuple[str, str, str, str, str]]:
    properties = cast("Mapping[str, Mapping[str, object]]", schema.get("properties", {}))
    required = cast("list[str]", schema.get("required", []))
    for name, field in properties.items():
        resolved = _resolved(field, root)
        if name in defaults:
            default = f"{_short(defaults[name])} (config)"
        elif name in required:
            default = "required"
        else:
            default = _short(field["default"]) if "default" in field else ""
        meaning = str(field.get("description", resolved.get("description", ""))).replace("\n", " ")
        yield f"{prefix}{name}", _type_of(field, root), default, _limits(resolved), meaning
        # One level of a group is shown with it; what lies deeper is in --schema json.
        if "properties" in resolved and not prefix:
            yield from _rows(resolved, root, f"{name}.", {})


def _resolved(field: Mapping[str, object], root: Mapping[str, object]) -> Mapping[str, object]:
    """Follow a reference, and ``X | None`` to X."""
    reference = field.get("$ref")
    if isinstance(reference, str):
        definitions = cast("Mapping[str, Mapping[str, object]]", root.get("$defs", {}))
        return definitions.get(reference.rpartition("/")[2], {})
    options = cast("list[Mapping[str, object]]", field.get("anyOf", []))
    others = [option for option in options if option.get("type") != "null"]
    return _resolved(others[0], root) if len(others) == 1 else field


def _type_of(field: Mapping[str, object], root: Mapping[str, object]) -> str:
    options = field.get("anyOf")
    if isinstance(options, list):
        return " | ".join(_type_of(option, root) for option in options)
    found = _resolved(field, root)
    if "enum" in found:
        return " | ".join(_short(value) for value in cast("list[object]", found["enum"]))
    if "const" in found:
        return _short(found["const"])
    kind = found.get("type")
    if kind == "array":
        items = cast("Mapping[str, object]", found.get("items", {}))
        return f"list of {_type_of(items, root)}" if items else "list"
    if kind == "object":
        return "group" if "properties" in found else "mapping"
    return str(found.get("format") or kind or "any")


_LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "≥ {} items",
    "maxItems": "≤ {} items",
    "pattern": "matches {}",
}


def _limits(field: Mapping[str, object]) -> str:
    return ", ".join(text.format(_whole(field[key])) for key, text in _LIMITS.items() if key in field)


def _whole(value: object) -> object:
    """Return 0.0 as 0: which of them a schema holds differs between versions of pydantic."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(value: object) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
