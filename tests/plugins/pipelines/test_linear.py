"""The linear form: what joins, what does not, and what each action is given."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field

from synapse_kernel import BaseAction, Kernel, action
from synapse_kernel.errors import ParamsError, SynapseError, UsageError
from synapse_kernel.types import COCODataset, DMDataset, DMv2Dataset, YOLODataset
from synapse_plugins.pipelines import linear
from synapse_plugins.pipelines.definition import REQUIRED, PipelineError
from synapse_plugins.pipelines.linear import ActionPipeline, PipelineWarning
from synapse_plugins.pipelines.pipeline import Pipeline


class Source(BaseModel):
    source: str
    limit: int = 10


class Converted(BaseModel):
    path: Path
    images: int


class Trained(BaseModel):
    weights: str
    loss: float = 0.5


class TrainParams(BaseModel):
    path: Path
    epochs: int
    images: int = 0


class ReportParams(BaseModel):
    weights: str
    path: Path
    title: str = "Report"


@action
def convert(params: Source, ctx) -> Converted:
    return Converted(path=Path(params.source) / "yolo", images=params.limit)


@action
def train(params: TrainParams, ctx) -> Trained:
    return Trained(weights=f"{params.path}/best-{params.epochs}.pt")


@action
def report(params: ReportParams, ctx) -> dict[str, object]:
    return params.model_dump(mode="json")


@action
def see(params, ctx):
    """Return all it was given."""
    return {"seen": dict(params)}


def problems_of(actions: list[object], **options: object) -> list[str]:
    """Return what is wrong with a chain of actions."""
    with pytest.raises(PipelineError) as raised:
        ActionPipeline(actions, **options)
    return [str(problem) for problem in raised.value.problems]


class TestRunning:
    def test_each_result_joins_the_params_of_all_that_follow(self, kernel: Kernel) -> None:
        outcome = ActionPipeline([convert, train, report]).execute(
            {"source": "/data", "epochs": 3}, kernel=kernel
        )

        assert {"weights": "/data/yolo/best-3.pt", "path": "/data/yolo", "title": "Report"} == (
            outcome.unwrap()
        )

    def test_the_later_result_goes_before_the_earlier_and_the_initial(self, kernel: Kernel) -> None:
        @action
        def first(params, ctx):
            return {"a": "first", "b": "first"}

        @action
        def second(params, ctx):
            return {"b": "second"}

        outcome = ActionPipeline([first, second, see]).execute(
            {"a": "initial", "b": "initial", "c": "initial"}, kernel=kernel
        )

        assert {"seen": {"a": "first", "b": "second", "c": "initial"}} == outcome.unwrap()

    def test_one_that_takes_no_other_fields_gets_only_its_own(self, kernel: Kernel) -> None:
        class Closed(BaseModel):
            model_config = ConfigDict(extra="forbid")
            images: int

        @action(params=Closed)
        def count(params, ctx):
            return {"counted": params.images}

        outcome = ActionPipeline([convert, count, see]).execute({"source": "/data"}, kernel=kernel)

        assert {"seen": {"source": "/data", "path": "/data/yolo", "images": 10, "counted": 10}} == (
            outcome.unwrap()
        )

    def test_one_whose_model_takes_other_fields_gets_all(self, kernel: Kernel) -> None:
        class Open(BaseModel):
            model_config = ConfigDict(extra="allow")

        @action(params=Open)
        def collect(params, ctx):
            return params.model_dump(mode="json")

        outcome = ActionPipeline([convert, collect]).execute({"source": "/data"}, kernel=kernel)

        assert {"source": "/data", "path": "/data/yolo", "images": 10} == outcome.unwrap()

    def test_results_of_every_kind_join_by_their_fields(self, kernel: Kernel) -> None:
        @dataclasses.dataclass
        class Data:
            a: int

        class Record(msgspec.Struct):
            b: Converted

        @action
        def data(params, ctx):
            return Data(1)

        @action
        def record(params, ctx):
            return Record(Converted(path=Path("/p"), images=2))

        @action
        def number(params, ctx):
            return 3

        @action
        def nothing(params, ctx):
            return None

        outcome = ActionPipeline([data, record, number, nothing, see]).execute({}, kernel=kernel)

        assert {"seen": {"a": 1, "b": {"path": "/p", "images": 2}, "number": 3}} == outcome.unwrap()

    def test_what_is_not_json_is_handed_on_as_it_is(self, kernel: Kernel) -> None:
        thing = object()

        @action
        def make(params, ctx):
            return {"thing": thing}

        @action
        def same(params, ctx):
            return params["thing"] is thing

        assert ActionPipeline([make, same]).execute({}, kernel=kernel).unwrap() is True

    def test_the_params_of_a_plugins_config_count_least(
        self, kernel: Kernel, make_folder: Callable[..., Path]
    ) -> None:
        folder = make_folder(
            {
                "config.yaml": """
                    name: P
                    code: p
                    version: 1.0
                    actions: {add: {entrypoint: "m:add", params: {a: 1, b: 1}}}
                """,
                "m.py": """
                    from pydantic import BaseModel
                    from synapse_kernel import action

                    class Params(BaseModel):
                        a: int
                        b: int

                    @action
                    def add(params: Params, ctx):
                        return {"sum": params.a + params.b}
                """,
            }
        )
        pipeline = ActionPipeline([f"{folder}:add", see], kernel=kernel)

        assert {} == pipeline.initial_fields
        assert {"seen": {"a": 40, "sum": 41}} == pipeline.execute({"a": 40}, kernel=kernel).unwrap()

    def test_the_same_action_twice_is_two_nodes(self, kernel: Kernel) -> None:
        @action
        def add(params, ctx):
            return {"n": params["n"] + 1}

        pipeline = ActionPipeline([add, add, add])

        assert ["add", "add_2", "add_3"] == [node.name for node in pipeline.spec.nodes]
        assert {"n": 3} == pipeline.execute({"n": 0}, kernel=kernel).unwrap()

    def test_it_is_submitted_and_waited_for(self, kernel: Kernel) -> None:
        pipeline = ActionPipeline([convert, see])
        run = pipeline.submit({"source": "/data"}, kernel=kernel)

        assert "/data/yolo" == pipeline.wait(run, timeout=60).unwrap()["seen"]["path"]

    def test_it_runs_on_the_executor_it_names(self, kernel: Kernel, make_folder: Callable[..., Path]) -> None:
        folder = make_folder(
            {
                "work.py": """
                    import os
                    from synapse_kernel import action

                    @action
                    def where(params, ctx):
                        return {"pid": os.getpid(), "before": params.get("pid")}
                """
            }
        )
        target = f"{folder / 'work.py'}:where"
        result = (
            ActionPipeline([target, target], executor="process", kernel=kernel)
            .execute(kernel=kernel)
            .unwrap()
        )

        assert os.getpid() not in result.values()
        assert result["before"] is not None

    def test_two_runs_of_one_pipeline_do_not_mix(self, kernel: Kernel) -> None:
        pipeline = ActionPipeline([convert, convert, see])
        runs = [pipeline.submit({"source": str(n)}, kernel=kernel) for n in range(8)]

        assert [f"{n}/yolo" for n in range(8)] == [r.result(60).unwrap()["seen"]["path"] for r in runs]

    def test_without_a_kernel_it_makes_one(self) -> None:
        assert {"seen": {"a": 1}} == ActionPipeline([see]).execute({"a": 1}).unwrap()


class TestDescribing:
    def test_its_spec_is_a_chain_whose_result_is_the_last(self) -> None:
        spec = ActionPipeline([convert, train], params={"epochs": 5}).spec

        assert ("convert-train", "${train}", {"source": REQUIRED, "epochs": 5}) == (
            spec.name,
            spec.output,
            spec.params,
        )
        assert [("convert", ()), ("train", ("convert",))] == [(n.name, n.needs) for n in spec.nodes]

    def test_a_long_one_is_named_after_its_ends(self) -> None:
        assert "see-…-see_5" == ActionPipeline([see] * 5).name
        assert "mine" == ActionPipeline([see] * 5, name="mine").name

    def test_a_name_that_references_use_gets_a_number(self) -> None:
        @action(name="run")
        def start(params, ctx):
            return None

        assert ["run_2"] == [node.name for node in ActionPipeline([start]).spec.nodes]

    def test_what_nobody_provides_is_an_initial_param(self) -> None:
        fields = ActionPipeline([convert, train, report]).initial_fields

        assert {"source": str, "epochs": int} == {name: field.annotation for name, field in fields.items()}

    def test_what_an_untold_result_may_provide_is_none(self) -> None:
        assert ["source"] == list(ActionPipeline([convert, see, train]).initial_fields)


class Text(BaseModel):
    images: str


class Closed(BaseModel):
    path: Path
    epochs: int


class Params(BaseModel):
    source: str
    epoch: int = 3


class Typed(TypedDict):
    images: int


class TestChecking:
    def test_all_mistakes_are_told_at_once(self) -> None:
        @action(params=Text, input_type=YOLODataset)
        def read(params, ctx):
            return None

        @action(params=Source, result=Converted, output_type=COCODataset)
        def to_coco(params, ctx):
            return None

        with pytest.raises(PipelineError) as raised:
            ActionPipeline([to_coco, train, read], params=Params)

        assert (
            "The pipeline 'to_coco-train-read' cannot be used:\n"
            "  train.epochs: neither the initial params nor an action before give it (required, int); "
            "did you mean 'epoch'?\n"
            "  read: it takes yolo_dataset, and 'to_coco' gives coco_dataset\n"
            "  read.images: 'to_coco' gives int where str is needed\n"
            "  params.epoch: no action takes it; did you mean 'epochs'?"
        ) == str(raised.value)

    def test_a_pipeline_that_is_not_strict_warns_and_tells(self) -> None:
        @action(params=Text)
        def read(params, ctx):
            return None

        with pytest.warns(PipelineWarning, match="read.images: 'convert' gives int where str is needed"):
            pipeline = ActionPipeline([convert, read], strict=False)

        assert ["read.images"] == [problem.where for problem in pipeline.problems]

    def test_fields_are_held_against_all_earlier_results_not_only_the_neighbours(self) -> None:
        @action(params=Text)
        def read(params, ctx):
            return None

        assert ["read.images: 'convert' gives int where str is needed"] == problems_of([convert, train, read])

    def test_the_later_result_is_what_counts(self) -> None:
        class Shown(BaseModel):
            images: str

        @action(params=Source, result=Shown)
        def show(params, ctx):
            return None

        @action(params=Text)
        def read(params, ctx):
            return None

        assert [] == ActionPipeline([convert, show, read]).problems

    def test_the_types_of_initial_params_count(self) -> None:
        class Initial(BaseModel):
            source: int

        assert ["convert.source: the initial params give int where str is needed"] == problems_of(
            [convert], params=Initial
        )

    def test_the_values_of_defaults_count(self) -> None:
        assert [
            "train.epochs: the initial params give 'many': input should be a valid integer, "
            "unable to parse string as an integer, got 'many'"
        ] == problems_of([convert, train], params={"epochs": "many"})

    def test_after_an_untold_result_nothing_is_held_against_anyone(self) -> None:
        @action(params=Text)
        def read(params, ctx):
            return None

        assert [] == ActionPipeline([convert, see, read]).problems

    def test_a_result_without_fields_is_checked_under_its_actions_name(self) -> None:
        class Count(BaseModel):
            count: str

        @action(result=int)
        def count(params, ctx):
            return 1

        @action(params=Count)
        def read(params, ctx):
            return None

        assert ["read.count: 'count' gives int where str is needed"] == problems_of([count, read])

    @pytest.mark.parametrize("kind", [Converted, Typed], ids=["model", "typed dict"])
    def test_results_of_every_kind_are_checked(self, kind: object) -> None:
        @action(result=kind)
        def make(params, ctx):
            return None

        @action(params=Text)
        def read(params, ctx):
            return None

        assert ["read.images: 'make' gives int where str is needed"] == problems_of([make, read])

    def test_an_action_that_cannot_be_found_is_told_with_the_others(
        self, kernel: Kernel, make_folder: Callable[..., Path]
    ) -> None:
        folder = make_folder(
            {"work.py": "from synapse_kernel import action\n\n@action\ndef do():\n    return 1\n"}
        )

        with pytest.raises(PipelineError) as raised:
            ActionPipeline(["./work.py:doo", "./nowhere.py:do"], base=folder, kernel=kernel)

        assert (
            "The pipeline cannot be used:\n"
            f"  actions[0]: {folder}/work.py has no action 'doo'; did you mean 'do'?; actions there: do\n"
            f"  actions[1]: There is no {folder}/nowhere.py"
        ) == str(raised.value)

    def test_texts_are_looked_up_without_a_kernel_too(self, make_folder: Callable[..., Path]) -> None:
        folder = make_folder(
            {"work.py": "from synapse_kernel import action\n\n@action\ndef do():\n    return 1\n"}
        )

        assert "do" == ActionPipeline(["work.py"], base=folder).name

    def test_what_is_no_action_is_refused(self) -> None:
        with pytest.raises(UsageError) as raised:
            ActionPipeline([convert, 3])

        assert (
            "actions[1] must be an action class or function, or a text like 'TARGET:ACTION'; got int"
        ) == str(raised.value)
        with pytest.raises(UsageError, match="An ActionPipeline needs a list of at least one action"):
            ActionPipeline([])

    def test_an_executor_that_is_not_there_is_told_before_anything_starts(self, kernel: Kernel) -> None:
        with pytest.raises(SynapseError, match="'mainframe'"):
            ActionPipeline([see], executor="mainframe").execute({}, kernel=kernel)


class TestSemanticTypes:
    @staticmethod
    def maker(made: object) -> object:
        class Make(BaseAction):
            output_type = made

            def execute(self):
                return None

        return Make

    @staticmethod
    def taker(wanted: object) -> object:
        class Take(BaseAction):
            input_type = wanted

            def execute(self):
                return None

        return Take

    def test_they_are_directed(self) -> None:
        assert [] == ActionPipeline([self.maker(DMv2Dataset), self.taker(DMDataset)]).problems
        assert ["take: it takes dm_v2_dataset, and 'make' gives dm_dataset"] == problems_of(
            [self.maker(DMDataset), self.taker(DMv2Dataset)]
        )

    def test_any_earlier_output_will_do(self) -> None:
        chain = [self.maker(YOLODataset), self.maker(COCODataset), see, self.taker(YOLODataset)]

        assert [] == ActionPipeline(chain).problems

    def test_the_first_action_may_take_anything(self) -> None:
        assert [] == ActionPipeline([self.taker(YOLODataset), see]).problems

    def test_an_unknown_type_is_told(self) -> None:
        (problem,) = problems_of([self.maker("yolo_datset"), self.taker(YOLODataset)])

        assert problem.startswith(
            "take: No data type is named 'yolo_datset'; did you mean 'yolo_dataset'?; known: "
        )


class Limited(BaseModel):
    source: str
    epochs: int = Field(3, ge=1)


class TestInitialParams:
    def test_all_mistakes_are_told_at_once(self) -> None:
        pipeline = ActionPipeline([convert, train, report])

        with pytest.raises(ParamsError) as raised:
            pipeline.validate_initial_params({"source": 3, "limit": "ten", "tilte": "x"})

        assert (
            "The params of the pipeline 'convert-train-report' are not valid (4 mistakes):\n"
            "  tilte: unknown; did you mean 'title'?\n"
            "  epochs: missing (required, int)\n"
            "  source: input should be a valid string, got 3\n"
            "  limit: input should be a valid integer, unable to parse string as an integer, got 'ten'"
        ) == str(raised.value)

    def test_nothing_starts_with_a_mistake(self, kernel: Kernel) -> None:
        started: list[object] = []

        @action(params=Source, result=Converted)
        def first(params, ctx):
            started.append(params)

        with pytest.raises(ParamsError):
            ActionPipeline([first, train]).execute({"source": "/data", "epochs": "x"}, kernel=kernel)

        assert [] == started

    def test_they_are_laid_over_the_defaults(self) -> None:
        pipeline = ActionPipeline([convert, train], params={"source": "/data", "epochs": 3})

        assert {"source": "/data", "epochs": 5} == pipeline.validate_initial_params({"epochs": 5})

    def test_a_model_checks_them_and_gives_its_defaults(self) -> None:
        pipeline = ActionPipeline([convert, train], params=Limited)

        assert {"source": "/data", "epochs": 3} == pipeline.validate_initial_params({"source": "/data"})
        with pytest.raises(ParamsError) as raised:
            pipeline.validate_initial_params({"epochs": 0, "sauce": "/data"})
        assert (
            "The params of the pipeline 'convert-train' are not valid (3 mistakes):\n"
            "  source: missing (required, str)\n"
            "  epochs: input should be greater than or equal to 1, got 0\n"
            "  sauce: unknown; did you mean 'source'?"
        ) == str(raised.value)

    def test_an_instance_of_the_model_will_do(self, kernel: Kernel) -> None:
        pipeline = ActionPipeline([convert, train], params=Limited)

        assert {"source": "/data", "epochs": 3} == pipeline.validate_initial_params(Limited(source="/data"))
        assert (
            "/data/yolo/best-3.pt"
            == pipeline.execute(Limited(source="/data"), kernel=kernel).unwrap().weights
        )

    def test_an_instance_in_place_of_the_model_gives_defaults(self) -> None:
        pipeline = ActionPipeline([convert, train], params=Limited(source="/data"))

        assert {"source": "/data", "epochs": 7} == pipeline.validate_initial_params({"epochs": 7})

    def test_required_marks_a_default_that_must_be_given(self) -> None:
        pipeline = ActionPipeline([see], params={"a": REQUIRED, "b": 1})

        assert ["a"] == list(pipeline.initial_fields)
        with pytest.raises(ParamsError, match=r"a: missing \(required"):
            pipeline.validate_initial_params({})

    def test_what_an_earlier_result_overwrites_is_not_held_against_them(self) -> None:
        assert {"source": "/data", "path": 3, "epochs": 1} == ActionPipeline(
            [convert, train]
        ).validate_initial_params({"source": "/data", "path": 3, "epochs": 1})

    def test_where_any_param_is_taken_none_is_unknown(self) -> None:
        assert {"whatever": 1} == ActionPipeline([see]).validate_initial_params({"whatever": 1})


def test_each_result_is_joined_once_however_long_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    @action
    def nothing(params, ctx):
        return {"a": 1}

    pipeline = ActionPipeline([nothing] * 100)
    joined: list[str] = []
    fields = linear.fields_by_name
    monkeypatch.setattr(linear, "fields_by_name", lambda *a: (joined.append(a[1]), fields(*a))[1])
    scope: dict[str, object] = {"params": {"x": 1}}
    for node in pipeline.spec.nodes:
        assert 1 == pipeline.params_for(node, scope)["x"]
        scope[node.name] = {"a": 1}

    assert ["", *(node.name for node in pipeline.spec.nodes[:-1])] == joined


@pytest.mark.parametrize("linear", [True, False])
def test_a_pipeline_keeps_no_kernel_alive(linear: bool) -> None:
    import gc
    import weakref

    @action
    def one(params, ctx):
        return {"one": 1}

    pipeline: ActionPipeline | Pipeline = ActionPipeline([one]) if linear else Pipeline("p")
    if isinstance(pipeline, Pipeline):
        pipeline.add("one", one)
    with Kernel() as kernel:
        pipeline.check_for(kernel)
    gone = weakref.ref(kernel)
    del kernel
    gc.collect()

    assert gone() is None


def test_a_run_that_failed_leaves_no_results_behind(kernel: Kernel) -> None:
    import gc
    import weakref

    class Big:
        """Something large."""

    seen: list[weakref.ref[Big]] = []

    @action
    def make(params, ctx):
        big = Big()
        seen.append(weakref.ref(big))
        return {"big": big}

    @action
    def fail(params, ctx):
        raise LookupError("gone")

    @action
    def last(params, ctx):
        return 1

    pipeline = ActionPipeline([make, fail, last])
    assert not pipeline.execute(kernel=kernel).ok
    gc.collect()

    assert seen[0]() is None
