"""What is wrong with a pipeline: each mistake by itself, with its line, and several at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import BaseAction, Kernel, Resources, action
from synapse_plugins.pipelines import REQUIRED, Pipeline, PipelineError

Told = Callable[[str], list[str]]

TITLE = "pipeline.yaml cannot be used:"


def test_a_pipeline_without_mistakes_is_read(told: Told) -> None:
    assert [] == told(
        """
        name: detector
        params: {source: null, epochs: 3, names: [a, b]}
        nodes:
          convert: {action: "./shapes.py:convert", with: {path: "${params.source}", target_format: yolo}}
          train:
            action: "./shapes.py:train"
            needs: [convert]
            with:
              data: "${convert.path}"
              epochs: "${params.epochs}"
              tags: "${convert.names}"
              optimiser: {name: "opt-${convert.note:-none}", rate: 0.5}
            executor: process
            resources: {cpus: 1, memory: 1GiB}
            retries: 2
            timeout: 1h
            when: "${convert.images} > 0 and ${params.epochs} < 9"
          each:
            action: "./shapes.py:train"
            foreach: "${convert.splits}"
            max_parallel: 2
            with: {data: "${convert.path}/${item.name}", tags: ["${item.name}", "n${index}", "${run.id}"]}
          named: {action: "./shapes.py:anything", foreach: "${params.names}", with: {x: "${item}"}}
          report:
            action: "./shapes.py:anything"
            with: {weights: "${each[*].weights}", first: "${each[0].accuracy}", all: "${each}"}
            on_failure: continue
        output: {report: "${report.path:-none}", train: "${train.accuracy}"}
        """
    )


def test_a_cycle_is_shown(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 3: nodes.a: the nodes need each other: a → b → c → a",
    ] == told(
        """
        name: x
        nodes:
          a: {action: "./shapes.py:anything", with: {x: "${c.x}"}}
          b: {action: "./shapes.py:anything", needs: a}
          c: {action: "./shapes.py:anything", needs: [b]}
          d: {action: "./shapes.py:anything", needs: [c]}
        """
    )


def test_a_node_that_needs_itself_is_a_cycle(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 3: nodes.a: the nodes need each other: a → a",
    ] == told('name: x\nnodes:\n  a: {action: "./shapes.py:anything", with: {x: "${a.x}"}}\n')


def test_two_cycles_are_both_shown(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 3: nodes.a: the nodes need each other: a → b → a",
        "  pipeline.yaml line 5: nodes.c: the nodes need each other: c → d → c",
    ] == told(
        """
        name: x
        nodes:
          a: {action: "./shapes.py:anything", needs: b}
          b: {action: "./shapes.py:anything", needs: a}
          c: {action: "./shapes.py:anything", needs: d}
          d: {action: "./shapes.py:anything", needs: c}
        """
    )


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (
            '{action: "./shapes.py:trian"}',
            "nodes.it.action: shapes.py has no action 'trian'; did you mean 'train'?; "
            "actions there: anything, convert, to_coco, train",
        ),
        (
            '{action: "./shape.py:train"}',
            "nodes.it.action: There is no shape.py; did you mean 'shapes.py'?",
        ),
        (
            '{action: "./shapes.py"}',
            "nodes.it.action: shapes.py has several actions; name one of: anything, convert, to_coco, train",
        ),
        (
            "{action: qqqqqqqqqq}",
            "nodes.it.action: Nothing is known of 'qqqqqqqqqq'; "
            "give a folder with a config.yaml, a Python file, a module or an installed action plugin; "
            "installed: none",
        ),
        (
            '{action: ""}',
            "nodes.it.action: The target is empty; name a folder, a Python file, "
            "a module or an action plugin",
        ),
        (
            '{action: "./shapes.py:anything", needs: [convrt]}',
            "nodes.it.needs[0]: there is no node 'convrt'; did you mean 'convert'?",
        ),
        (
            '{action: "./shapes.py:anything", needs: [xyz]}',
            "nodes.it.needs[0]: there is no node 'xyz'; nodes here: convert, it, many",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: ["${convrt.path}"]}}',
            "nodes.it.with.a[0]: ${convrt.path}: there is no node 'convrt'; did you mean 'convert'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.pth}"}}',
            "nodes.it.with.a: ${convert.pth}: convert has no 'pth'; did you mean 'path'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.xyz}"}}',
            "nodes.it.with.a: ${convert.xyz}: convert has no 'xyz'; "
            "there is: images, main, names, note, path, splits",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.splits[0].nam}"}}',
            "nodes.it.with.a: ${convert.splits[0].nam}: convert.splits[0] has no 'nam'; did you mean 'name'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.main.nam}"}}',
            "nodes.it.with.a: ${convert.main.nam}: convert.main has no 'nam'; did you mean 'name'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.images.x}"}}',
            "nodes.it.with.a: ${convert.images.x}: convert.images is int, which has no field 'x'",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.images[0]}"}}',
            "nodes.it.with.a: ${convert.images[0]}: convert.images is int, not a list",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${many.path}"}}',
            "nodes.it.with.a: ${many.path}: many is a list; for the 'path' of each write ${many[*].path}",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${params.sorce}"}}',
            "nodes.it.with.a: ${params.sorce}: the pipeline declares no param 'sorce'; "
            "did you mean 'source'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${params.opt.lrr}"}}',
            "nodes.it.with.a: ${params.opt.lrr}: params.opt has no 'lrr'; did you mean 'lr'?; there is: lr",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${run.floder}"}}',
            "nodes.it.with.a: ${run.floder}: run has no 'floder'; did you mean 'folder'?",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${run}"}}',
            "nodes.it.with.a: ${run}: write which, as in ${run.id}",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${item.x}"}}',
            "nodes.it.with.a: ${item.x}: item is there only in with, inputs and env of a node with foreach",
        ),
        (
            '{action: "./shapes.py:anything", foreach: [1], when: "${item} > 1"}',
            "nodes.it.when: ${item}: item is there only in with, inputs and env of a node with foreach",
        ),
        (
            '{action: "./shapes.py:anything", with: {a: "${convert.path"}}',
            "nodes.it.with.a: ${convert.path: the closing } is missing; write $${ for a literal ${",
        ),
        (
            '{action: "./shapes.py:anything", foreach: "${convert.images}"}',
            "nodes.it.foreach: convert.images is int, and foreach needs a list",
        ),
        (
            '{action: "./shapes.py:anything", foreach: "${convert}"}',
            "nodes.it.foreach: convert is Converted, and foreach needs a list",
        ),
        (
            '{action: "./shapes.py:anything", foreach: "${params.opt}"}',
            "nodes.it.foreach: params.opt is {'lr': 0.1} by default, and foreach needs a list",
        ),
        (
            '{action: "./shapes.py:anything", foreach: all}',
            "nodes.it.foreach: expected a list or a reference to one, got 'all'",
        ),
        (
            '{action: "./shapes.py:train", foreach: "${convert.images}", with: {data: "${item}"}}',
            "nodes.it.foreach: convert.images is int, and foreach needs a list",
        ),
        (
            '{action: "./shapes.py:train", foreach: "${convert.splits}", with: {data: "${item.images}"}}',
            "nodes.it.with.data: item.images is int where Path is needed",
        ),
        (
            '{action: "./shapes.py:train", foreach: [1, 2], with: {data: "${item}"}}',
            "nodes.it.with.data: item is int where Path is needed",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.names}"}}',
            "nodes.it.with.data: convert.names is list[str] where Path is needed",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", epochs: "n${convert.images}"}}',
            "nodes.it.with.epochs: text with a reference in it is str where int is needed",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", tags: ["${convert.images}"]}}',
            "nodes.it.with.tags[0]: convert.images is int where str is needed",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", tags: {a: "${convert.note}"}}}',
            "nodes.it.with.tags: dict where list[str] is needed",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", '
            'optimiser: {rate: "${convert.path}", nam: a}}}',
            "nodes.it.with.optimiser.rate: convert.path is Path where float is needed\n"
            "nodes.it.with.optimiser.nam: unknown; did you mean 'name'?",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", epoch: 3}}',
            "nodes.it.with.epoch: unknown; did you mean 'epochs'?",
        ),
        (
            '{action: "./shapes.py:train", with: {data: /d, epochs: many, epoch: 3}}',
            "nodes.it.with.epochs: input should be a valid integer, unable to parse string as an integer, "
            "got 'many'\nnodes.it.with.epoch: unknown; did you mean 'epochs'?",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", epochs: 0}}',
            "nodes.it.with.epochs: input should be greater than or equal to 1, got 0",
        ),
        ('{action: "./shapes.py:train"}', "nodes.it.with.data: missing (required, Path)"),
        (
            '{action: "./shapes.py:train", with: {epochs: "${params.epochs}"}}',
            "nodes.it.with.data: missing (required, Path)",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${convert.path}", epochs: "${params.source2}"}}',
            "nodes.it.with.epochs: params.source2 is 'here' by default: input should be a valid integer, "
            "unable to parse string as an integer, got 'here'",
        ),
        (
            '{action: "./shapes.py:train", '
            'with: {data: "${convert.path}", epochs: "${convert.images:-none}"}}',
            "nodes.it.with.epochs: the default of ${convert.images:-none} does not fit: "
            "input should be a valid integer, unable to parse string as an integer, got 'none'",
        ),
        (
            '{action: "./shapes.py:train", with: {data: "${many[*].path}"}}',
            "nodes.it.with.data: many[*].path is list[Path] where Path is needed",
        ),
        (
            '{action: "./shapes.py:convert", executor: proces, with: {path: .}}',
            "nodes.it.executor: there is no executor 'proces'; did you mean 'process'?",
        ),
        (
            '{action: "./shapes.py:anything", when: "${convert.images} >"}',
            "nodes.it.when: the condition '${convert.images} >' cannot be read: invalid syntax",
        ),
        (
            '{action: "./shapes.py:anything", when: "${convert.imges} > 1"}',
            "nodes.it.when: ${convert.imges}: convert has no 'imges'; did you mean 'images'?",
        ),
        (
            '{action: "./shapes.py:anything", timeout: soon}',
            "nodes.it.timeout: 'soon' is not a duration; write it like 90, 45s, 10m or 1h30m",
        ),
        ('{action: "./shapes.py:anything", retries: -1}', "nodes.it.retries: must not be negative, got -1"),
        (
            '{action: "./shapes.py:anything", foreach: [1], max_parallel: 0}',
            "nodes.it.max_parallel: must be at least 1, got 0",
        ),
        (
            '{action: "./shapes.py:anything", max_parallel: 2}',
            "nodes.it.max_parallel: bounds the instances of a foreach, and there is none",
        ),
        (
            '{action: "./shapes.py:anything", resources: {memory: much}}',
            "nodes.it.resources.memory: 'much' is not a size; write it like 512MB or 8GiB",
        ),
    ],
)
def test_a_mistake_of_a_node_is_told_with_its_place(told: Told, node: str, problem: str) -> None:
    text = f"""
        name: x
        params: {{source: null, source2: here, opt: {{lr: 0.1}}, epochs: 3}}
        nodes:
          convert:
            action: "./shapes.py:convert"
            with: {{path: "${{params.source}}"}}
          many:
            action: "./shapes.py:convert"
            foreach: "${{convert.names}}"
            with: {{path: "${{item}}"}}
          it: {node}
        output: ["${{params.source2}}", "${{params.opt}}", "${{params.epochs}}"]
        """
    expected = [f"  pipeline.yaml line 11: {line}" for line in problem.split("\n")]

    assert [TITLE, *expected] == told(text)


def test_a_node_gets_data_of_the_type_it_takes(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 4: nodes.train.with.data: "
        "'convert' gives coco_dataset, and 'train' takes yolo_dataset",
    ] == told(
        """
        name: x
        nodes:
          convert: {action: "./shapes.py:to_coco", with: {path: .}}
          train: {action: "./shapes.py:train", with: {data: "${convert.path}"}}
        """
    )


def test_one_of_several_nodes_may_give_the_type_that_is_taken(told: Told) -> None:
    assert [] == told(
        """
        name: x
        nodes:
          convert: {action: "./shapes.py:convert", with: {path: .}}
          coco: {action: "./shapes.py:to_coco", with: {path: .}}
          train: {action: "./shapes.py:train", with: {data: "${convert.path}", tags: "${coco.names}"}}
        """
    )


def test_a_node_of_which_it_is_not_known_may_give_the_type_that_is_taken(told: Told) -> None:
    assert [] == told(
        """
        name: x
        nodes:
          coco: {action: "./shapes.py:to_coco", with: {path: .}}
          own: {action: "./shapes.py:anything"}
          train: {action: "./shapes.py:train", with: {tags: "${coco.names}", data: "${own.path}"}}
        """
    )


def test_a_param_that_nothing_refers_to_is_told(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 4: params.epochs: nothing refers to it; "
        "use it as ${params.epochs}, or take it out",
    ] == told(
        """
        name: x
        params:
          source: null
          epochs: 3
        nodes:
          convert: {action: "./shapes.py:convert", with: {path: "${params.source}"}}
        """
    )


def test_all_params_together_are_used_by_a_reference_to_them(told: Told) -> None:
    assert [] == told(
        """
        name: x
        params: {a: 1, b: 2}
        nodes: {it: {action: "./shapes.py:anything", with: {x: "${params}"}}}
        """
    )


def test_everything_is_told_at_once_in_the_order_of_the_lines(told: Told) -> None:
    assert [
        TITLE,
        "  pipeline.yaml line 2: params.unused: nothing refers to it; "
        "use it as ${params.unused}, or take it out",
        "  pipeline.yaml line 3: concurency: unknown key; did you mean 'concurrency'?",
        "  pipeline.yaml line 7: nodes.convert.with.target_fromat: unknown; did you mean 'target_format'?",
        "  pipeline.yaml line 10: nodes.train.needs[0]: there is no node 'convrt'; did you mean 'convert'?",
        "  pipeline.yaml line 12: nodes.train.with.data: ${convert.pth}: convert has no 'pth'; "
        "did you mean 'path'?",
        "  pipeline.yaml line 13: nodes.train.with.epochs: params.epochs is 'three' by default: "
        "input should be a valid integer, unable to parse string as an integer, got 'three'",
        "  pipeline.yaml line 14: nodes.train.retries: expected a whole number, got text: 'many'",
        "  pipeline.yaml line 15: nodes.train.excutor: unknown key; did you mean 'executor'?",
        "  pipeline.yaml line 16: nodes.train.on_failure: expected one of stop, continue, got 'contine'; "
        "did you mean 'continue'?",
        "  pipeline.yaml line 18: nodes.loop.action: shapes.py has no action 'trian'; did you mean 'train'?; "
        "actions there: anything, convert, to_coco, train",
        "  pipeline.yaml line 19: nodes.loop.foreach: convert.images is int, and foreach needs a list",
        "  pipeline.yaml line 20: nodes.x: the nodes need each other: x → y → x",
        "  pipeline.yaml line 22: output: ${trian.weights}: there is no node 'trian'; did you mean 'train'?",
    ] == told(
        """
        name: detector
        params: {source: null, epochs: three, unused: 1}
        concurency: 3
        nodes:
          convert:
            action: "./shapes.py:convert"
            with: {path: "${params.source}", target_fromat: yolo}
          train:
            action: "./shapes.py:train"
            needs: [convrt]
            with:
              data: "${convert.pth}"
              epochs: "${params.epochs}"
            retries: many
            excutor: process
            on_failure: contine
          loop:
            action: "./shapes.py:trian"
            foreach: "${convert.images}"
          x: {action: "./shapes.py:anything", needs: y}
          y: {action: "./shapes.py:anything", needs: x}
        output: "${trian.weights}"
        """
    )


def test_code_that_does_not_import_is_one_problem(told: Told, folder: Path) -> None:
    (folder / "broken.py").write_text(
        "import nothing_of_this_name\nfrom synapse_kernel import action\n@action\ndef f(p): ...\n"
    )

    assert [
        TITLE,
        "  pipeline.yaml line 3: nodes.a.action: The code of 'f' does not load: "
        "ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "  pipeline.yaml line 4: nodes.b.with.path: missing (required, Path)",
    ] == told(
        """
        name: x
        nodes:
          a: {action: "./broken.py:f"}
          b: {action: "./shapes.py:convert"}
        """
    )


def test_what_a_config_gives_need_not_be_given(
    told: Told, make_folder: Callable[..., Path], folder: Path
) -> None:
    (folder / "config.yaml").write_text(
        "name: p\nactions:\n  convert: {entrypoint: shapes:convert, params: {path: here}}\n"
    )

    assert [] == told('name: x\nnodes: {a: {action: "./:convert", with: {target_format: coco}}}\n')


# From Python


@action
def plain(params, ctx):  # type: ignore[no-untyped-def]
    return params


class Count(BaseAction[dict[str, int], dict[str, int]]):
    def execute(self) -> dict[str, int]:
        return {}


def test_a_pipeline_of_python_is_checked_in_the_same_way(kernel: Kernel) -> None:
    made = Pipeline("numbers", params={"start": REQUIRED, "idle": 1}, concurrency=0)
    made.add("count", Count, with_={"n": "${params.start}"}, retries=-1, resources=Resources(cpus=-1.0))
    made.add("next", plain, needs=["cuont"], on_failure="contine", timeout=0)  # type: ignore[arg-type]

    with pytest.raises(PipelineError) as raised:
        made.validate(kernel)

    assert [
        "The pipeline 'numbers' cannot be used:",
        "  concurrency: must be at least 1, got 0",
        "  params.idle: nothing refers to it; use it as ${params.idle}, or take it out",
        "  nodes.count.retries: must not be negative, got -1",
        "  nodes.count.resources.cpus: must not be negative, got -1.0",
        "  nodes.next.needs[0]: there is no node 'cuont'; did you mean 'count'?",
        "  nodes.next.timeout: 0 is not a duration: it must be above zero",
        "  nodes.next.on_failure: expected one of stop, continue, got 'contine'; did you mean 'continue'?",
    ] == str(raised.value).splitlines()


def test_problems_are_returned_where_they_are_not_to_be_raised(kernel: Kernel) -> None:
    made = Pipeline("x")
    made.add("a", lambda params, ctx: None)

    assert [
        "nodes.a.action: test_problems_are_returned_where_they_are_not_to_be_raised.<locals>.<lambda> "
        "is a function without @action, not an action; an action is a class derived from "
        "synapse_kernel.BaseAction, or a function under @action"
    ] == [str(problem) for problem in made.validate(kernel, strict=False)]


def test_without_a_kernel_the_actions_are_not_looked_at() -> None:
    made = Pipeline("x")
    made.add("a", "./nowhere:b", executor="none", with_={"x": "${b.x}"})

    assert ["nodes.a.with.x: ${b.x}: there is no node 'b'; nodes here: a"] == [
        str(problem) for problem in made.validate(strict=False)
    ]


@pytest.mark.parametrize("kwargs", [{}, {"params": {"not a name": 1}}])
def test_a_pipeline_without_nodes_or_name_is_none(kwargs: dict[str, object]) -> None:
    told = [str(problem) for problem in Pipeline(" ", **kwargs).validate(strict=False)]  # type: ignore[arg-type]

    assert ["name: a pipeline needs a name", "nodes: a pipeline needs at least one node"] == told[:2]
    if kwargs:
        assert "params.not a name: 'not a name' is no param's name; write it like a variable's" == told[2]
