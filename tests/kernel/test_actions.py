"""Actions: classes and functions, their models, how they are run and what becomes of their results."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, Field

from synapse_kernel import (
    BaseAction,
    COCODataset,
    EntrypointError,
    Kernel,
    ModelWeights,
    RunFailedError,
    RuntimeContext,
    UnknownNameError,
    YOLODataset,
    action,
)
from synapse_kernel.actions import action_code, default_name, is_action

MakeFolder = Callable[..., Path]
T = TypeVar("T")
U = TypeVar("U")

both_executors = pytest.mark.parametrize("executor", ["local", "process"])


class Sides(BaseModel):
    width: int = Field(gt=0)
    height: int = 2


class Area(BaseModel):
    area: int
    unit: str = "px"


class Volume(Area):
    depth: int = 1


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


class Plain:
    """A class that pydantic knows nothing of."""


class AreaAction(BaseAction[Sides, Area]):
    """Compute an area."""

    def execute(self) -> Area:
        return Area(area=self.params.width * self.params.height)


# Models from type arguments and class attributes.


def test_models_come_from_the_type_arguments():
    assert Sides is AreaAction.params_model
    assert Area is AreaAction.result_model


def test_params_alone_may_be_named():
    class Only(BaseAction[Sides]):
        def execute(self) -> object:
            return None

    assert Sides is Only.params_model
    assert None is Only.result_model


def test_models_come_from_class_attributes():
    class ByAttribute(BaseAction):
        params_model = Sides
        result_model = Area

        def execute(self) -> object:
            return {"area": self.params.width}

    code = action_code(ByAttribute)

    assert Sides is code.params_type
    assert Area is code.result_type


def test_a_class_attribute_wins_over_a_type_argument():
    class Both(BaseAction[Sides, Area]):
        result_model = Volume

        def execute(self) -> object:
            return None

    assert Sides is Both.params_model
    assert Volume is Both.result_model


def test_type_arguments_are_followed_through_generic_classes_between():
    class WithParams(BaseAction[T, Area], Generic[T]):
        pass

    class Between(WithParams[U], Generic[U]):
        pass

    class Leaf(Between[Sides]):
        def execute(self) -> object:
            return None

    assert (Sides, Area) == (Leaf.params_model, Leaf.result_model)
    assert (None, Area) == (Between.params_model, Between.result_model)


def test_type_arguments_may_be_swapped_between():
    class Swapped(BaseAction[U, T], Generic[T, U]):
        pass

    class Leaf(Swapped[Area, Sides]):
        pass

    assert (Sides, Area) == (Leaf.params_model, Leaf.result_model)


def test_a_type_variable_inside_a_generic_model_is_filled_in():
    class Paged(BaseAction[Sides, Page[T]], Generic[T]):
        pass

    class Leaf(Paged[int]):
        pass

    assert Page[int] is Leaf.result_model


def test_a_child_inherits_the_models_of_its_parent():
    class Child(AreaAction):
        pass

    assert (Sides, Area) == (Child.params_model, Child.result_model)


def test_a_grandchild_inherits_the_attribute_that_its_parent_set():
    class Child(AreaAction):
        result_model = Volume

    class Grandchild(Child):
        pass

    assert Volume is Grandchild.result_model


@pytest.mark.parametrize("argument", [dict, dict[str, object], dict[str, Any], object, Any])
def test_type_arguments_that_say_nothing_are_no_model(argument: Any):
    class Free(BaseAction[argument, argument]):
        def execute(self) -> object:
            return None

    assert (None, None) == (Free.params_model, Free.result_model)


@pytest.mark.parametrize("model", [Point, Named, list[int], dict[str, int]])
def test_dataclasses_typed_dicts_and_containers_are_models_too(model: Any):
    class Typed(BaseAction[Sides, model]):
        def execute(self) -> object:
            return None

    assert model == Typed.result_model


# Names and descriptions.


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("TrainAction", "train"),
        ("CountBoxes", "count_boxes"),
        ("ToYOLOAction", "to_yolo"),
        ("YOLOExport", "yolo_export"),
        ("Action", "action"),
        ("Resize2D", "resize2_d"),
    ],
)
def test_a_class_without_a_name_is_named_after_itself(class_name: str, expected: str):
    assert expected == default_name(class_name)


def test_the_first_line_of_the_docstring_describes_an_action():
    @action
    def measure(params: Sides) -> Area:
        """
        Measure something.

        At length.
        """
        return Area(area=params.width)

    assert "Compute an area." == action_code(AreaAction).description
    assert "Measure something." == action_code(measure).description


def test_a_child_does_not_inherit_the_description():
    class Child(AreaAction):
        pass

    assert "" == action_code(Child).description


# Functions.


@action
def area(params: Sides, ctx: RuntimeContext) -> Area:
    return Area(area=params.width * params.height)


def test_a_function_takes_its_models_from_its_annotations():
    code = action_code(area)

    assert ("area", Sides, Area, 2) == (code.name, code.params_type, code.result_type, code.arity)


def test_what_is_given_to_the_decorator_wins_over_the_function():
    @action(
        name="measure",
        description="Measure it.",
        params=Sides,
        result=Volume,
        category="custom",
        input_type=COCODataset,
        output_type="model_weights",
        result_check="warn",
    )
    def function(params: Area) -> Area:
        """Say something else."""
        return params

    code = action_code(function)

    assert ("measure", "Measure it.") == (code.name, code.description)
    assert (Sides, Volume) == (code.params_type, code.result_type)
    assert ("custom", "coco_dataset", "model_weights") == (code.category, code.input_type, code.output_type)
    assert "warn" == code.result_check


def test_a_decorated_function_stays_callable():
    assert Area(area=6) == area(Sides(width=3), None)


def test_a_function_may_take_nothing_params_or_params_and_context(kernel: Kernel):
    @action
    def nothing():
        return "nothing"

    @action
    def one(params):
        return params

    @action
    def two(params, ctx):
        return params, ctx.run_id

    @action
    def more(params, ctx, factor=3):
        return factor

    assert "nothing" == kernel.run(nothing).unwrap()
    assert {"a": 1} == kernel.run(one, params={"a": 1}).unwrap()
    outcome = kernel.run(two, params={"a": 1})
    assert ({"a": 1}, outcome.run_id) == outcome.unwrap()
    assert 3 == kernel.run(more).unwrap()


def test_a_function_that_needs_more_than_two_arguments_is_refused(kernel: Kernel):
    @action
    def greedy(params, ctx, third):
        return None

    with pytest.raises(EntrypointError) as raised:
        kernel.run(greedy)

    name = f"{test_a_function_that_needs_more_than_two_arguments_is_refused.__name__}.<locals>.greedy"
    assert f"{name} takes 3 arguments; an action function takes (params, ctx)" == str(raised.value)


def test_an_annotation_that_leads_nowhere_is_told(kernel: Kernel):
    @action
    def lost(params: Missing) -> None:  # noqa: F821 - that is the point
        return None

    with pytest.raises(EntrypointError) as raised:
        kernel.run(lost)

    name = f"{test_an_annotation_that_leads_nowhere_is_told.__name__}.<locals>.lost"
    assert f"The annotations of {name} cannot be read: NameError: name 'Missing' is not defined" == str(
        raised.value
    )


def test_the_contexts_annotation_may_be_known_to_type_checkers_alone(kernel: Kernel):
    """``if TYPE_CHECKING: from synapse_kernel import RuntimeContext`` is how many write it."""

    @action
    def typed(params: Sides, ctx: OnlyForTypeCheckers) -> Area:  # noqa: F821 - that is the point
        return Area(area=params.width)

    assert Area(area=4) == kernel.run(typed, params={"width": 4}).unwrap()


@pytest.mark.parametrize(
    ("target", "what"),
    [
        (len, "a builtin_function_or_method"),
        (Plain, "a class that does not derive from BaseAction"),
        (default_name, "a function without @action"),
    ],
)
def test_what_is_no_action_is_refused(kernel: Kernel, target: Any, what: str):
    with pytest.raises(EntrypointError) as raised:
        kernel.run(target)

    assert (
        f"{target.__qualname__} is {what}, not an action\n"
        "  an action is a class derived from synapse_kernel.BaseAction, or a function under @action"
    ) == str(raised.value)
    assert not is_action(target)


def test_a_class_without_execute_is_refused(kernel: Kernel):
    class Empty(BaseAction[Sides]):
        pass

    with pytest.raises(EntrypointError) as raised:
        kernel.run(Empty, params={"width": 1})

    name = f"{test_a_class_without_execute_is_refused.__name__}.<locals>.Empty"
    assert f"{name} does not implement execute(), so it cannot run" == str(raised.value)
    assert not is_action(Empty)


# Running, in each executor.

SHAPES = {
    "config.yaml": """
        name: shapes
        actions:
          sync_class: plugin.shapes:SyncClass
          async_class: plugin.shapes:AsyncClass
          sync_function: plugin.shapes:sync_function
          async_function: plugin.shapes:async_function
    """,
    "plugin/__init__.py": "",
    "plugin/shapes.py": """
        import asyncio

        from pydantic import BaseModel

        from synapse_kernel import BaseAction, RuntimeContext, action


        class Sides(BaseModel):
            width: int
            height: int = 2
            wrong: bool = False


        class Area(BaseModel):
            area: int


        def result_of(params: Sides) -> object:
            return {"area": "large"} if params.wrong else {"area": params.width * params.height}


        class SyncClass(BaseAction[Sides, Area]):
            def execute(self):
                self.log("measured", {"width": self.params.width})
                return result_of(self.params)


        class AsyncClass(BaseAction[Sides, Area]):
            async def execute(self):
                await asyncio.sleep(0)
                self.log("measured", {"width": self.params.width})
                return result_of(self.params)


        @action
        def sync_function(params: Sides, ctx: RuntimeContext) -> Area:
            ctx.log("measured", {"width": params.width})
            return result_of(params)


        @action
        async def async_function(params: Sides, ctx: RuntimeContext) -> Area:
            await asyncio.sleep(0)
            ctx.log("measured", {"width": params.width})
            return result_of(params)
    """,
}
SHAPE_ACTIONS = ["sync_class", "async_class", "sync_function", "async_function"]


@both_executors
@pytest.mark.parametrize("name", SHAPE_ACTIONS)
def test_classes_and_functions_plain_and_async_do_the_same(
    kernel: Kernel, make_folder: MakeFolder, recorder: Any, name: str, executor: str
):
    folder = str(make_folder(SHAPES))

    outcome = kernel.run(folder, name, {"width": 4}, executor=executor, sinks=[recorder])

    assert "succeeded" == outcome.status, outcome.error
    assert "Area" == type(outcome.result).__name__
    assert {"area": 8} == outcome.result.model_dump()
    said = [(e.event, e.data) for e in recorder.events if type(e).__name__ == "Log"]
    assert [("measured", {"width": 4})] == said


@both_executors
@pytest.mark.parametrize("name", SHAPE_ACTIONS)
def test_a_result_that_does_not_fit_fails_the_run(
    kernel: Kernel, make_folder: MakeFolder, name: str, executor: str
):
    folder = str(make_folder(SHAPES))

    outcome = kernel.run(folder, name, {"width": 4, "wrong": True}, executor=executor)

    assert "failed" == outcome.status
    assert outcome.error is not None
    assert ("result", "ResultError") == (outcome.error.kind, outcome.error.type)
    assert (
        f"the result of '{name}' does not fit Area: area: input should be a valid integer, unable to parse "
        "string as an integer, got 'large'\n"
        '  fix the result, or set result_check = "warn" on the action to keep it as it is'
    ) == outcome.error.message


def test_an_action_is_run_from_inside_a_running_event_loop(kernel: Kernel):
    @action
    async def wait(params, ctx):
        await asyncio.sleep(0)
        return ctx.run_id

    async def caller() -> object:
        return kernel.run(wait)

    outcome = asyncio.run(caller())

    assert "succeeded" == outcome.status
    assert outcome.run_id == outcome.result


def test_an_async_action_that_raises_fails_the_run_with_its_own_exception(kernel: Kernel):
    @action
    async def explode(params, ctx):
        raise LookupError("nothing there")

    outcome = kernel.run(explode)

    assert ("LookupError", "nothing there") == (outcome.error.type, outcome.error.message)
    assert isinstance(outcome.exception, LookupError)
    with pytest.raises(RunFailedError, match="nothing there"):
        outcome.unwrap()


# What the config injects.

KINDS = {
    "config.yaml": """
        name: kinds
        category: export
        actions:
          first:
            entrypoint: kinds:Kinds
            input_type: coco_dataset
            output_type: model_weights
          second:
            entrypoint: kinds:Kinds
            category: upload
          function:
            entrypoint: kinds:function
            category: upload
    """,
    "kinds.py": """
        from synapse_kernel import BaseAction, action
        from synapse_kernel.types import Dataset


        class Kinds(BaseAction):
            category = "custom"
            input_type = Dataset

            def execute(self):
                def told(of):
                    kinds = [of.input_type, of.output_type]
                    return [of.action_name, of.category, *(k and k.__name__ for k in kinds)]

                return {"instance": told(self), "class": told(type(self))}


        @action
        def function(params):
            return "done"
    """,
}


@both_executors
def test_name_category_and_types_of_the_config_stand_on_the_instance_alone(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    folder = str(make_folder(KINDS))

    first = kernel.run(folder, "first", executor=executor).unwrap()
    second = kernel.run(folder, "second", executor=executor).unwrap()

    assert ["first", "export", "COCODataset", "ModelWeights"] == first["instance"]
    assert ["second", "upload", "Dataset", None] == second["instance"]
    assert [None, "custom", "Dataset", None] == first["class"] == second["class"]


@both_executors
def test_a_function_runs_under_a_config_that_names_a_category(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    assert "done" == kernel.run(str(make_folder(KINDS)), "function", executor=executor).unwrap()


def test_name_category_and_types_may_stand_on_the_class(kernel: Kernel):
    class Export(BaseAction):
        action_name = "to_weights"
        category = "export"
        input_type = YOLODataset
        output_type = "model_weights"

        def execute(self) -> object:
            return [self.action_name, self.category, self.input_type, self.output_type]

    code = action_code(Export)

    assert ("to_weights", "export", "yolo_dataset", "model_weights") == (
        code.name,
        code.category,
        code.input_type,
        code.output_type,
    )
    told = kernel.run(Export).unwrap()
    assert ["to_weights", "export", YOLODataset, ModelWeights] == told


# Results.


def test_a_mapping_becomes_the_result_model(kernel: Kernel):
    @action
    def measure(params) -> Area:
        return {"area": "7"}

    assert Area(area=7) == kernel.run(measure).unwrap()


def test_a_result_of_the_model_itself_or_a_child_of_it_passes_as_it_is(kernel: Kernel):
    given = [Area(area=1), Volume(area=2, depth=3)]

    @action
    def measure(params) -> Area:
        return given[params["which"]]

    for index, expected in enumerate(given):
        assert expected is kernel.run(measure, params={"which": index}).unwrap()


def test_a_model_of_another_class_counts_by_its_fields(kernel: Kernel):
    class Other(BaseModel):
        area: int

    @action
    def measure(params) -> Area:
        return Other(area=9)

    assert Area(area=9) == kernel.run(measure).unwrap()


def test_a_dataclass_and_a_list_are_checked_and_coerced(kernel: Kernel):
    @action(result=Point)
    def point(params):
        return {"x": "3"}

    @action(result=list[int])
    def numbers(params):
        return ("1", 2)

    assert Point(x=3, y=0) == kernel.run(point).unwrap()
    assert [1, 2] == kernel.run(numbers).unwrap()


def test_a_class_that_pydantic_does_not_know_is_checked_by_isinstance(kernel: Kernel):
    class Child(Plain):
        pass

    @action
    def make(params) -> Plain:
        return Child() if params["right"] else 5

    assert isinstance(kernel.run(make, params={"right": True}).unwrap(), Child)
    outcome = kernel.run(make, params={"right": False})
    assert (
        "the result of 'make' does not fit Plain: it: input should be an instance of Plain, got 5\n"
        '  fix the result, or set result_check = "warn" on the action to keep it as it is'
    ) == outcome.error.message


def test_without_a_result_model_any_object_passes_in_process(kernel: Kernel):
    made = Plain()

    @action
    def make(params):
        return made

    assert made is kernel.run(make).unwrap()


@pytest.mark.parametrize("shape", ["class", "function"])
def test_result_check_warn_keeps_the_result_with_a_warning(kernel: Kernel, recorder: Any, shape: str):
    class Measure(BaseAction[dict, Area]):
        result_check = "warn"

        def execute(self) -> object:
            return {"area": "large"}

    @action(name="measure", result=Area, result_check="warn")
    def measure(params):
        return {"area": "large"}

    outcome = kernel.run(Measure if shape == "class" else measure, sinks=[recorder])

    text = (
        "the result of 'measure' does not fit Area: area: input should be a valid integer, unable to parse "
        "string as an integer, got 'large'"
    )
    assert "succeeded" == outcome.status
    assert {"area": "large"} == outcome.result
    assert [text] == outcome.warnings
    (event,) = (e for e in recorder.events if getattr(e, "event", "") == "result_mismatch")
    assert ("warning", {"message": text}) == (event.level, event.data)


RESULTS = {
    "config.yaml": """
        name: results
        actions:
          warned: results:Warned
          aliased: results:aliased
          computed: results:computed
          no_json: results:no_json
    """,
    "results.py": """
        from pydantic import BaseModel, Field, computed_field

        from synapse_kernel import BaseAction, action


        class Area(BaseModel):
            area: int


        class Aliased(BaseModel):
            class_: str = Field(alias="class")


        class Computed(BaseModel):
            side: int

            @computed_field
            @property
            def area(self) -> int:
                return self.side**2


        class Warned(BaseAction[dict, Area]):
            result_check = "warn"

            def execute(self):
                return {"area": "large"}


        @action
        def aliased(params) -> Aliased:
            return {"class": "cat"}


        @action
        def computed(params) -> Computed:
            return Computed(side=3)


        @action
        def no_json(params):
            return {"a": [1, object()]}
    """,
}


@both_executors
def test_a_warned_result_is_kept_in_every_executor(kernel: Kernel, make_folder: MakeFolder, executor: str):
    outcome = kernel.run(str(make_folder(RESULTS)), "warned", executor=executor)

    assert ("succeeded", {"area": "large"}) == (outcome.status, outcome.result)
    assert 1 == len(outcome.warnings)


@both_executors
def test_a_result_model_with_aliases_comes_back_as_the_model(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    outcome = kernel.run(str(make_folder(RESULTS)), "aliased", executor=executor)

    assert "cat" == outcome.unwrap().class_
    assert {"class": "cat"} == outcome.to_dict()["result"]


@both_executors
def test_a_result_model_with_computed_fields_comes_back_as_the_model(
    kernel: Kernel, make_folder: MakeFolder, executor: str
):
    outcome = kernel.run(str(make_folder(RESULTS)), "computed", executor=executor)

    assert (3, 9) == (outcome.unwrap().side, outcome.unwrap().area)


def test_a_result_that_is_not_json_fails_where_it_must_travel(kernel: Kernel, make_folder: MakeFolder):
    folder = str(make_folder(RESULTS))

    assert kernel.run(folder, "no_json", executor="local").ok
    outcome = kernel.run(folder, "no_json", executor="process")

    assert ("failed", "result") == (outcome.status, outcome.error.kind)
    assert (
        "The result is not JSON: it['a'][1] is of type object\n"
        "  return numbers, text, lists, mappings or a pydantic model; write the rest to a file in\n"
        "  ctx.work_dir and return its path, or run with the executor 'local', where any object may pass"
    ) == outcome.error.message


# What an action can say of itself.


def test_the_short_cuts_of_an_action_are_those_of_its_context(kernel: Kernel, recorder: Any):
    class Talk(BaseAction):
        def execute(self) -> object:
            self.log("started", {"n": 1})
            self.set_progress(1, 2, "files")
            self.set_metrics({"loss": 0.5}, "train")
            self.logger.info("hello %s", "there")
            return None

    kernel.run(Talk, sinks=[recorder])

    kinds = [type(event).__name__ for event in recorder.events]
    assert ["State", "State", "Log", "Metrics", "Log", "Progress", "State"] == kinds


def test_an_action_may_override_a_short_cut(kernel: Kernel, recorder: Any):
    class Loud(BaseAction):
        def log(self, event, data=None, *, level="info"):
            super().log(event.upper(), data, level=level)

        def execute(self) -> object:
            self.log("started")
            return None

    kernel.run(Loud, sinks=[recorder])

    assert ["STARTED"] == [e.event for e in recorder.events if type(e).__name__ == "Log"]


def test_autolog_of_an_unknown_framework_names_those_that_are_known(kernel: Kernel):
    class Train(BaseAction):
        def execute(self) -> object:
            self.autolog("ultralitics")
            return None

    outcome = kernel.run(Train)

    assert isinstance(outcome.exception, UnknownNameError)
