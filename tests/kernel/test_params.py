"""Params: layers and precedence, texts typed by their field, all mistakes in one error, secrets hidden."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from typing_extensions import TypedDict

from synapse_kernel import Kernel, ParamsError, action
from synapse_kernel.actions import ActionCode, action_code
from synapse_kernel.models import schema_of
from synapse_kernel.params import Layer, Text, check_params, merge, secret_values, shown

MakeFolder = Callable[..., Path]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Optimiser(BaseModel):
    name: Literal["sgd", "adam"] = "sgd"
    rate: float = Field(default=0.1, gt=0)
    betas: list[float] = []


class Train(BaseModel):
    epochs: int = Field(ge=1)
    rate: float = 0.1
    fast: bool = False
    name: str = "run"
    mode: Literal["train", "val", 3] = "train"
    colour: Colour = Colour.RED
    weights: Path | None = None
    day: date | None = None
    limit: int | None = None
    tags: list[str] = []
    sizes: list[int] = []
    labels: dict[str, int] = {}
    optimiser: Optimiser = Optimiser()
    stages: list[Optimiser] = []
    either: int | str = 0


def code_of(model: object) -> ActionCode:
    @action(name="train", params=model)
    def train(params, ctx):
        return params

    return action_code(train)


TRAIN = code_of(Train)


def read(key: str, *texts: str, model: object = Train) -> object:
    """Return what the texts typed for a key become."""
    given: Any = Text(texts)
    for part in reversed(key.split(".")):
        given = {part: given}
    found: Any = merge([Layer(given, "-p")], code_of(model)).values
    for part in key.split("."):
        found = found[part]
    return found


# Layers.


def test_later_layers_win_and_mappings_merge_key_by_key():
    merged = merge(
        [
            Layer({"epochs": 1, "optimiser": {"name": "sgd", "rate": 0.5}}, "config.yaml"),
            Layer({"epochs": 2, "optimiser": {"rate": 0.25}}, "params.yaml"),
            Layer({"optimiser": {"betas": [1]}}, "-p"),
        ]
    )

    assert {"epochs": 2, "optimiser": {"name": "sgd", "rate": 0.25, "betas": [1]}} == merged.values
    assert {
        "epochs": "params.yaml",
        "optimiser.name": "config.yaml",
        "optimiser.rate": "params.yaml",
        "optimiser.betas": "-p",
    } == merged.origins


def test_lists_are_replaced_not_joined():
    assert {"tags": ["b"]} == merge([Layer({"tags": ["a", "c"]}, "x"), Layer({"tags": ["b"]}, "y")]).values


def test_a_plain_value_replaces_a_mapping_and_a_mapping_a_plain_value():
    assert {"a": 1} == merge([Layer({"a": {"b": 2}}, "x"), Layer({"a": 1}, "y")]).values
    assert {"a": {"b": 2}} == merge([Layer({"a": 1}, "x"), Layer({"a": {"b": 2}}, "y")]).values


def test_merging_changes_none_of_the_layers():
    first = {"optimiser": {"rate": 0.5}}

    merge([Layer(first, "x"), Layer({"optimiser": {"rate": 0.1}}, "y")])

    assert {"optimiser": {"rate": 0.5}} == first


FOLDER = {
    "config.yaml": """
        name: trainer
        actions:
          train:
            entrypoint: trainer:Train
            params:
              epochs: 3
              optimiser: {rate: 0.5}
    """,
    "trainer.py": """
        from pydantic import BaseModel, Field

        from synapse_kernel import BaseAction


        class Optimiser(BaseModel):
            name: str = "sgd"
            rate: float = Field(default=0.1, gt=0)


        class Params(BaseModel):
            epochs: int = Field(default=1, ge=1)
            batch: int = 8
            optimiser: Optimiser = Optimiser()


        class Train(BaseAction[Params]):
            def execute(self):
                return self.params.model_dump()
    """,
}


@pytest.mark.parametrize("executor", ["local", "process"])
def test_the_models_defaults_come_first_then_the_config_then_the_call(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    folder = str(make_folder(FOLDER))

    outcome = kernel.run(folder, "train", {"optimiser": {"name": "adam"}}, executor=executor)

    expected = {"epochs": 3, "batch": 8, "optimiser": {"name": "adam", "rate": 0.5}}
    assert expected == outcome.unwrap()


def test_a_plan_tells_each_value_and_its_origin(kernel: Kernel, make_folder: MakeFolder):
    plan = kernel.plan(str(make_folder(FOLDER)), "train", {"optimiser": {"name": "adam"}})

    assert {"epochs": 3, "batch": 8, "optimiser": {"name": "adam", "rate": 0.5}} == plan.params
    assert {
        "epochs": "config.yaml",
        "batch": "default",
        "optimiser.rate": "config.yaml",
        "optimiser.name": "the call",
    } == plan.origins


def test_an_instance_of_the_model_is_taken_as_it_is(kernel: Kernel):
    given = Train(epochs=5)

    @action
    def train(params: Train):
        return params

    assert given is kernel.run(train, params=given).unwrap()


def test_an_action_without_a_model_takes_any_mapping(kernel: Kernel):
    @action
    def free(params):
        return params

    assert {"anything": [1, {"b": None}]} == kernel.run(free, params={"anything": [1, {"b": None}]}).unwrap()
    assert {} == kernel.run(free).unwrap()


# Mistakes.


def test_every_mistake_is_told_in_one_error_each_with_its_origin():
    merged = merge(
        [
            Layer({"rate": "fast", "optimser": {"rate": 1}}, "config.yaml"),
            Layer({"optimiser": {"rate": -1, "nmae": "adam"}, "mode": "test"}, "params.yaml"),
            Layer({"limit": Text(("many",)), "stages": Text(('[{"rate": 0}]',))}, "-p"),
        ],
        TRAIN,
    )

    with pytest.raises(ParamsError) as raised:
        check_params(TRAIN, merged.values, merged.origins, target="./plugin")

    assert (
        "The params of 'train' are not valid (8 mistakes):\n"
        "  epochs: missing (required, int)\n"
        "  rate: input should be a valid number, unable to parse string as a number, got 'fast' "
        "(from config.yaml)\n"
        "  mode: input should be 'train', 'val' or 3, got 'test' (from params.yaml)\n"
        "  limit: input should be a valid integer, unable to parse string as an integer, got 'many' "
        "(from -p)\n"
        "  optimiser.rate: input should be greater than 0, got -1 (from params.yaml)\n"
        "  stages[0].rate: input should be greater than 0, got 0 (from -p)\n"
        "  optimser: unknown; did you mean 'optimiser'? (from config.yaml)\n"
        "  optimiser.nmae: unknown; did you mean 'name'? (from params.yaml)\n"
        "see what it takes with: synapse-kernel describe ./plugin train"
    ) == str(raised.value)
    assert 8 == len(raised.value.problems)


def test_a_mistake_in_the_call_is_told_with_it(kernel: Kernel, make_folder: MakeFolder):
    folder = str(make_folder(FOLDER))

    with pytest.raises(ParamsError) as raised:
        kernel.run(folder, "train", {"epochs": 0, "optimiser": {"rate": None}})

    assert (
        "The params of 'train' are not valid (2 mistakes):\n"
        "  epochs: input should be greater than or equal to 1, got 0 (from the call)\n"
        "  optimiser.rate: input should be a valid number, got None (from the call)\n"
        f"see what it takes with: synapse-kernel describe {folder} train"
    ) == str(raised.value)


def test_one_mistake_is_counted_as_one_and_an_unknown_key_without_a_near_one_lists_what_is_known():
    with pytest.raises(ParamsError) as raised:
        check_params(code_of(Optimiser), {"zzz": 1}, {"zzz": "params.yaml"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        "  zzz: unknown; known: betas, name, rate (from params.yaml)"
    ) == str(raised.value)


def test_unknown_keys_are_found_in_models_inside_lists():
    with pytest.raises(ParamsError) as raised:
        check_params(TRAIN, {"epochs": 1, "stages": [{"rate": 1}, {"raet": 1}]}, {"stages": "-p"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        "  stages[1].raet: unknown; did you mean 'rate'? (from -p)"
    ) == str(raised.value)


def test_a_model_that_allows_or_ignores_more_has_its_will():
    class Allowing(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Ignoring(BaseModel):
        model_config = ConfigDict(extra="ignore")

    assert {"more": 1} == check_params(code_of(Allowing), {"more": 1}, {}).model_extra
    assert {} == check_params(code_of(Ignoring), {"more": 1}, {}).model_dump()


def test_a_model_that_forbids_more_is_told_with_the_nearest_key():
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        epochs: int = 1

    with pytest.raises(ParamsError) as raised:
        check_params(code_of(Strict), {"epoch": 2}, {"epoch": "config.yaml"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        "  epoch: unknown; did you mean 'epochs'? (from config.yaml)"
    ) == str(raised.value)


def test_what_a_validator_says_is_told():
    class Range(BaseModel):
        low: int
        high: int

        @model_validator(mode="after")
        def ordered(self):
            if self.low > self.high:
                raise ValueError("Low must not be above high")
            return self

    with pytest.raises(ParamsError) as raised:
        check_params(code_of(Range), {"low": 2, "high": 1}, {"low": "-p", "high": "-p"})

    assert ("The params of 'train' are not valid (1 mistake):\n  low must not be above high") == str(
        raised.value
    )


def test_a_long_value_is_left_out_of_the_message():
    with pytest.raises(ParamsError) as raised:
        check_params(TRAIN, {"epochs": "x" * 100}, {"epochs": "-p"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        "  epochs: input should be a valid integer, unable to parse string as an integer (from -p)"
    ) == str(raised.value)


# Aliases.


class Aliased(BaseModel):
    rate: float = Field(default=0.1, alias="lr")
    epochs: int = Field(default=1, validation_alias=AliasChoices("epochs", "n"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    rate: float = Field(default=0.1, alias="lr")


def test_a_field_is_taken_under_its_alias():
    built = check_params(code_of(Aliased), {"lr": 0.5, "n": 3}, {})

    assert (0.5, 3) == (built.rate, built.epochs)


def test_a_name_that_an_alias_hides_is_unknown_and_not_passed_over():
    with pytest.raises(ParamsError) as raised:
        check_params(code_of(Aliased), {"rate": 0.5}, {"rate": "-p"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n  rate: unknown; known: epochs, lr, n (from -p)"
    ) == str(raised.value)


def test_a_name_counts_beside_its_alias_where_the_model_says_so():
    assert 0.5 == check_params(code_of(ByName), {"rate": 0.5}, {}).rate
    assert 0.5 == check_params(code_of(ByName), {"lr": 0.5}, {}).rate


def test_a_text_is_typed_by_the_field_behind_its_alias():
    class Names(BaseModel):
        title: str = Field(alias="t")

    assert "5" == read("t", "5", model=Names)


# Texts of the command line.


@pytest.mark.parametrize(
    ("key", "texts", "expected"),
    [
        pytest.param("epochs", ["5"], 5, id="int"),
        pytest.param("rate", ["1e-3"], 0.001, id="float"),
        pytest.param("rate", ["1"], 1, id="a whole number for a float"),
        pytest.param("fast", ["true"], True, id="bool"),
        pytest.param("fast", ["yes"], "yes", id="a word that pydantic reads as bool"),
        pytest.param("name", ["plain words"], "plain words", id="text"),
        pytest.param("name", ["5"], "5", id="text that looks like a number"),
        pytest.param("name", ["true"], "true", id="text that looks like a truth value"),
        pytest.param("name", ["null"], "null", id="text that looks like null"),
        pytest.param("name", ["[1]"], "[1]", id="text that looks like a list"),
        pytest.param("name", [""], "", id="empty text"),
        pytest.param("mode", ["val"], "val", id="literal of text"),
        pytest.param("mode", ["3"], 3, id="literal of a number"),
        pytest.param("colour", ["blue"], "blue", id="enum"),
        pytest.param("weights", ["a/b.pt"], "a/b.pt", id="path"),
        pytest.param("weights", ["7"], "7", id="path that looks like a number"),
        pytest.param("day", ["2024-05-06"], "2024-05-06", id="date"),
        pytest.param("limit", ["5"], 5, id="optional"),
        pytest.param("limit", ["null"], None, id="optional null"),
        pytest.param("tags", ["a"], ["a"], id="a list of one"),
        pytest.param("tags", ["1"], ["1"], id="a list of one text that looks like a number"),
        pytest.param("tags", ["a", "2"], ["a", "2"], id="a list of several"),
        pytest.param("tags", ['["a", "b"]'], ["a", "b"], id="a list as JSON"),
        pytest.param("sizes", ["1"], [1], id="a list of one number"),
        pytest.param("sizes", ["1", "2"], [1, 2], id="a list of several numbers"),
        pytest.param("sizes", ["[1, 2]"], [1, 2], id="numbers as JSON"),
        pytest.param("labels", ['{"cat": 1}'], {"cat": 1}, id="a mapping as JSON"),
        pytest.param("optimiser", ['{"rate": 2}'], {"rate": 2}, id="a model as JSON"),
        pytest.param("optimiser.name", ["adam"], "adam", id="nested"),
        pytest.param("optimiser.betas", ["1"], [1], id="nested list of one"),
        pytest.param("stages", ['{"rate": 2}'], [{"rate": 2}], id="a list of one model"),
        pytest.param("stages", ['{"rate": 2}', '{"rate": 3}'], [{"rate": 2}, {"rate": 3}], id="of several"),
        pytest.param("either", ["5"], 5, id="a union of number and text"),
        pytest.param("either", ["a5"], "a5", id="the same, with text"),
    ],
)
def test_a_text_is_read_as_its_field_wants(key: str, texts: list[str], expected: object):
    found = read(key, *texts)

    assert expected == found
    assert type(expected) is type(found)


def test_texts_for_the_values_of_a_mapping_are_typed_by_what_it_holds():
    values = {"epochs": 1, "labels": {"cat": Text(("1",))}}

    assert {"cat": 1} == merge([Layer(values, "-p")], TRAIN).values["labels"]


def test_a_text_for_an_unknown_key_is_read_as_json_else_as_text():
    assert 5 == read("unheard", "5")
    assert "five" == read("unheard", "five")
    assert [5, "five"] == read("unheard", "5", "five")


def test_a_text_that_no_reading_makes_right_is_told_as_it_was_typed():
    merged = merge([Layer({"epochs": Text(("many",))}, "-p epochs=many")], TRAIN)

    with pytest.raises(ParamsError) as raised:
        check_params(TRAIN, merged.values, merged.origins)

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        "  epochs: input should be a valid integer, unable to parse string as an integer, got 'many' "
        "(from -p epochs=many)"
    ) == str(raised.value)


def test_without_a_model_a_text_is_json_else_text():
    merged = merge([Layer({"a": Text(("1",)), "b": Text(("x",)), "c": Text(("1", "x"))}, "-p")])

    assert {"a": 1, "b": "x", "c": [1, "x"]} == merged.values


def test_constraints_of_the_field_count_when_a_text_is_read():
    """A text of digits that is too long for the number is still one of the text."""

    class Code(BaseModel):
        value: Annotated[int, Field(le=99)] | Annotated[str, Field(min_length=3)]

    assert 42 == read("value", "42", model=Code)
    assert "12345" == read("value", "12345", model=Code)


@dataclasses.dataclass
class Point:
    x: int
    label: str = ""


class Row(TypedDict):
    title: str
    count: NotRequired[int]


def test_dataclasses_and_typed_dicts_are_params_too(kernel: Kernel):
    @action
    def point(params: Point):
        return params

    @action
    def row(params: Row):
        return params

    assert Point(x=1, label="a") == kernel.run(point, params={"x": "1", "label": "a"}).unwrap()
    assert {"title": "a", "count": 2} == kernel.run(row, params={"title": "a", "count": "2"}).unwrap()


@pytest.mark.parametrize(("model", "key"), [(Point, "label"), (Row, "title")])
def test_texts_are_typed_by_the_fields_of_dataclasses_and_typed_dicts(model: object, key: str):
    assert "5" == read(key, "5", model=model)


@pytest.mark.parametrize(("model", "key", "near"), [(Point, "lable", "label"), (Row, "titel", "title")])
def test_unknown_keys_of_dataclasses_and_typed_dicts_are_told(model: Any, key: str, near: str):
    values = {"x": 1, key: "a"} if model is Point else {"title": "a", key: "a"}

    with pytest.raises(ParamsError) as raised:
        check_params(code_of(model), values, {key: "-p"})

    assert (
        "The params of 'train' are not valid (1 mistake):\n"
        f"  {key}: unknown; did you mean '{near}'? (from -p)"
    ) == str(raised.value)


# Secrets.


class Account(BaseModel):
    user: str = "me"
    login: SecretStr = SecretStr("")


class Upload(BaseModel):
    login: SecretStr = Field(default=SecretStr(""), alias="pass_phrase")
    api_key: str = ""
    account: Account | None = None
    accounts: list[Account] = []
    by_name: dict[str, Account] = {}
    words: list[SecretStr] = []
    keypoints: int = 17
    keyboard: str = ""


SECRETS = {
    "pass_phrase": "hush-1",
    "api_key": "hush-2",
    "account": {"user": "ann", "login": "hush-3"},
    "accounts": [{"login": "hush-4"}],
    "by_name": {"bob": {"user": "bob", "login": "hush-5"}},
    "words": ["hush-6", "hush-7"],
    "keypoints": 17,
    "keyboard": "qwerty",
}


def test_secrets_are_masked_by_name_and_by_type_wherever_they_stand():
    assert {
        "pass_phrase": "***",
        "api_key": "***",
        "account": {"user": "ann", "login": "***"},
        "accounts": [{"login": "***"}],
        "by_name": {"bob": {"user": "bob", "login": "***"}},
        "words": "***",
        "keypoints": 17,
        "keyboard": "qwerty",
    } == shown(code_of(Upload), SECRETS)


def test_the_texts_of_all_secrets_are_known():
    assert [f"hush-{n}" for n in range(1, 8)] == sorted(secret_values(code_of(Upload), SECRETS))


def test_secrets_given_as_objects_are_known_too():
    values = {"account": {"login": SecretStr("hush-1")}, "unheard": SecretStr("hush-2")}

    assert ["hush-1", "hush-2"] == secret_values(code_of(Upload), values)
    assert {"account": {"login": "***"}, "unheard": "***"} == shown(code_of(Upload), values)


def test_secrets_are_masked_by_name_without_a_model(kernel: Kernel):
    @action
    def free(params):
        return None

    plan = kernel.plan(free, params={"token": "hush", "inner": {"password": "hush", "n": 1}, "tokens": 5})

    assert {"token": "***", "inner": {"password": "***", "n": 1}, "tokens": 5} == plan.params


def test_a_plan_masks_the_secrets_of_a_model_instance_and_of_defaults(kernel: Kernel):
    @action
    def upload(params: Upload):
        return None

    plan = kernel.plan(
        upload, params=Upload(pass_phrase="hush-1", account=Account(login=SecretStr("hush-2")))
    )

    assert "hush" not in str(plan)
    assert "***" == plan.params["pass_phrase"]
    assert {"user": "me", "login": "***"} == plan.params["account"]


def test_a_mistake_in_a_secret_does_not_show_it():
    values = {"pass_phrase": 4711, "account": {"login": 4712}, "api_key": ["hush"]}

    with pytest.raises(ParamsError) as raised:
        check_params(code_of(Upload), values, {})

    assert (
        "The params of 'train' are not valid (3 mistakes):\n"
        "  pass_phrase: input should be a valid string\n"
        "  api_key: input should be a valid string\n"
        "  account.login: input should be a valid string"
    ) == str(raised.value)


VAULT = {
    "config.yaml": "name: vault\nactions: {open: 'vault:Open'}\n",
    "vault.py": """
        from pydantic import BaseModel, SecretStr

        from synapse_kernel import BaseAction


        class Account(BaseModel):
            login: SecretStr


        class Params(BaseModel):
            phrase: SecretStr
            account: Account


        class Open(BaseAction[Params, dict]):
            def execute(self):
                spoken = self.params.phrase.get_secret_value()
                login = self.params.account.login.get_secret_value()
                self.log("opened", {"with": f"<{spoken}>", "account": [login], "bare": self.params})
                self.ctx.log_message(f"opened with {spoken} and {login}")
                self.logger.info("opened with %s", spoken)
                return {"length": len(spoken) + len(login)}
    """,
}


@pytest.mark.parametrize("executor", ["local", "process"])
def test_secrets_reach_the_action_and_no_event(
    kernel: Kernel, make_folder: MakeFolder, recorder: Any, executor: str
):
    params = {"phrase": "open sesame", "account": {"login": "ali-baba"}}

    outcome = kernel.run(str(make_folder(VAULT)), "open", params, executor=executor, sinks=[recorder])

    assert {"length": 19} == outcome.unwrap()
    text = repr(recorder.events)
    assert "sesame" not in text
    assert "baba" not in text
    logs = [e for e in recorder.events if type(e).__name__ == "Log"]
    assert ("<***>", ["***"]) == (logs[0].data["with"], logs[0].data["account"])
    assert ["opened with *** and ***"] == [e.text for e in recorder.events if type(e).__name__ == "Message"]
    assert "opened with ***" == logs[1].data["message"]


# Schemas.


def test_the_schema_of_a_model_is_json_schema():
    schema = schema_of(Optimiser)

    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert {"betas", "name", "rate"} == set(schema["properties"])


def test_the_schema_of_nothing_is_empty():
    assert {} == schema_of(None)


def test_a_dataclass_has_a_schema_too():
    assert {"x", "label"} == set(schema_of(Point)["properties"])


class Optimizer(BaseModel):
    kind: str = "sgd"
    lr: float = 0.1


class Tuned(BaseModel):
    opt: Optimizer = Optimizer(kind="adam", lr=3)
    tags: list[str] = []


@action
def tuned(params: Tuned, ctx: object) -> None: ...


def test_a_part_of_an_inner_model_is_laid_over_what_stands_there_by_default():
    merged = merge([Layer({"opt": {"lr": Text(("1",))}}, "-p")], action_code(tuned))

    built = check_params(action_code(tuned), merged.values, merged.origins)
    assert Tuned(opt=Optimizer(kind="adam", lr=1)) == built


def test_an_empty_text_for_a_list_is_the_empty_list_and_null_is_a_mistake():
    code = action_code(tuned)
    assert {"tags": []} == merge([Layer({"tags": Text(("",))}, "-p")], code).values
    merged = merge([Layer({"tags": Text(("null",))}, "-p")], code)
    with pytest.raises(ParamsError):
        check_params(code, merged.values, merged.origins)


def test_a_model_that_raises_is_told_as_such():
    class Fragile(BaseModel):
        n: int = 0

        @field_validator("n", mode="before")
        @classmethod
        def count(cls, value: object) -> int:
            return len(value)  # type: ignore[arg-type]

    @action(params=Fragile)
    def fragile(params: object, ctx: object) -> None: ...

    with pytest.raises(ParamsError) as raised:
        check_params(action_code(fragile), {"n": None}, {})
    assert (
        "The params of 'fragile' cannot be checked:\n"
        "  its model raised TypeError: object of type 'NoneType' has no len()"
    ) == str(raised.value)
