"""Static discovery: actions are found by reading source, and nothing is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import TargetNotFoundError
from synapse_plugins.discovery import PluginDiscovery

MakeFolder = Callable[..., Path]
Found = Callable[..., dict[str, str]]

EXECUTE = "    def execute(self): ...\n"


@pytest.fixture
def found(make_folder: MakeFolder) -> Found:
    """Return a function that gives the actions found in files, as names to entrypoints."""

    def look(files: dict[str, str]) -> dict[str, str]:
        result = PluginDiscovery.discover_actions(make_folder(files))
        assert [] == result.problems
        return {action.name: action.entrypoint for action in result.actions}

    return look


@pytest.mark.parametrize(
    ("imports", "base"),
    [
        ("from synapse_kernel import BaseAction", "BaseAction"),
        ("from synapse_kernel import BaseAction", "BaseAction[Params]"),
        ("from synapse_kernel import BaseAction", "BaseAction[Params, Result]"),
        ("from synapse_kernel import BaseAction as B", "B"),
        ("from synapse_kernel.actions import BaseAction", "BaseAction"),
        ("import synapse_kernel", "synapse_kernel.BaseAction"),
        ("import synapse_kernel as sk", "sk.BaseAction[Params]"),
        ("import synapse_kernel.actions", "synapse_kernel.actions.BaseAction"),
        ("import synapse_kernel.actions as a", "a.BaseAction"),
        ("from synapse_kernel import actions", "actions.BaseAction"),
        ("from synapse_kernel import *", "BaseAction"),
        ("from synapse_kernel import BaseAction\nBase = BaseAction", "Base"),
        ("from synapse_kernel import BaseAction\nBase = BaseAction[dict]", "Base"),
        ("from synapse_kernel import BaseAction\nBase: type = BaseAction", "Base"),
        ("import synapse_kernel as sk\nBase = sk.BaseAction\nAgain = Base", "Again"),
        ("try:\n    from synapse_kernel import BaseAction\nexcept ImportError:\n    raise", "BaseAction"),
        ("if True:\n    from synapse_kernel import BaseAction", "BaseAction"),
        ("import contextlib\nwith open(0):\n    from synapse_kernel import BaseAction", "BaseAction"),
    ],
)
def test_a_class_is_an_action_under_every_alias_of_its_base(found: Found, imports: str, base: str) -> None:
    assert {"train": "m:TrainAction"} == found({"m.py": f"{imports}\nclass TrainAction({base}):\n{EXECUTE}"})


@pytest.mark.parametrize(
    ("imports", "decorator"),
    [
        ("from synapse_kernel import action", "action"),
        ("from synapse_kernel import action", "action()"),
        ("from synapse_kernel import action as act", "act(category='export')"),
        ("import synapse_kernel as sk", "sk.action"),
        ("from synapse_kernel import *", "action"),
        ("from synapse_kernel import action\nmark = action", "mark"),
        ("from synapse_kernel import action", "print\n@action"),
    ],
)
@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_a_function_is_an_action_under_every_alias_of_the_decorator(
    found: Found, imports: str, decorator: str, keyword: str
) -> None:
    source = f"{imports}\n@{decorator}\n{keyword} count(params, ctx): ...\n"

    assert {"count": "m:count"} == found({"m.py": source})


BASES = {
    "plugin/__init__.py": """
from .base import Middle as Renamed, BaseAction as Kernels
from . import base as inner
""",
    "plugin/base.py": f"""
from typing import Generic, TypeVar
from synapse_kernel import BaseAction, action as mark
T = TypeVar("T")
class Middle(BaseAction[T]):
{EXECUTE}
class Second(Middle[T], Generic[T]):
    pass
class Mixed:
{EXECUTE}
""",
    "plugin/sub/__init__.py": "from ..base import *\n",
}


@pytest.mark.parametrize(
    ("imports", "base"),
    [
        ("from plugin.base import Middle", "Middle[int]"),
        ("from plugin.base import Middle as M", "M[int]"),
        ("from .base import Second", "Second[int]"),
        ("from . import Renamed", "Renamed[int]"),
        ("from plugin import Renamed", "Renamed[int]"),
        ("from . import base", "base.Middle[int]"),
        ("from . import inner", "inner.Middle[int]"),
        ("import plugin.base", "plugin.base.Middle[int]"),
        ("import plugin.base as pb", "pb.Second[int]"),
        ("import plugin", "plugin.inner.Second[int]"),
        ("from plugin.base import *", "Middle[int]"),
        ("from plugin.sub import Middle", "Middle[int]"),
        ("from .sub import *", "Middle[int]"),
        ("from plugin import Kernels\nfrom plugin.base import Mixed", "Mixed, Kernels"),
    ],
)
def test_a_class_is_an_action_through_classes_of_other_modules(found: Found, imports: str, base: str) -> None:
    source = f"{imports}\nclass TrainAction({base}): ...\n"

    assert {"train": "plugin.main:TrainAction"} == found({**BASES, "plugin/main.py": source})


def test_a_decorator_is_followed_through_other_modules(found: Found) -> None:
    source = "from .base import mark\n@mark(name='marked')\ndef function(params): ...\n"

    assert {"marked": "plugin.main:function"} == found({**BASES, "plugin/main.py": source})


def test_classes_in_a_circle_of_names_are_no_actions(found: Found) -> None:
    files = {
        "a.py": f"from b import B\nclass A(B):\n{EXECUTE}",
        "b.py": f"from a import A\nclass B(A):\n{EXECUTE}",
        "c.py": f"from c import C as D\nC = D\nclass E(C):\n{EXECUTE}",
    }

    assert {} == found(files)


@pytest.mark.parametrize(
    "source",
    [
        "class Train(BaseAction): ...",
        f"class _Hidden(BaseAction):\n{EXECUTE}",
        f"class BaseTrain(BaseAction):\n{EXECUTE}",
        f"class Base(BaseAction):\n{EXECUTE}",
        f"T = TypeVar('T')\nclass Open(BaseAction[T]):\n{EXECUTE}",
        f"T = typing.TypeVar('T')\nclass Open(BaseAction[list[T]]):\n{EXECUTE}",
        f"class Open(BaseAction, Generic[T]):\n{EXECUTE}",
        "class Abstract(BaseAction):\n    @abstractmethod\n    def execute(self): ...",
        f"class Abstract(BaseAction):\n{EXECUTE}    @abc.abstractmethod\n    def fit(self): ...",
        f"class Train:\n{EXECUTE}",
        f"class Train(Unknown):\n{EXECUTE}",
        f"def make():\n    class Train(BaseAction):\n    {EXECUTE}",
        "def action(f): ...\n@action\ndef mine(params): ...",
        "@other.action\ndef theirs(params): ...",
    ],
)
def test_what_is_meant_for_deriving_or_is_no_action_is_passed_over(found: Found, source: str) -> None:
    head = (
        "import abc, typing, other\nfrom abc import abstractmethod\nfrom typing import Generic, TypeVar\n"
        "from synapse_kernel import BaseAction\n"
    )

    assert {} == found({"m.py": f"{head}{source}\n"})


def test_a_name_that_only_begins_like_base_is_an_actions(found: Found) -> None:
    source = f"from synapse_kernel import BaseAction\nclass BaselineAction(BaseAction):\n{EXECUTE}"

    assert {"baseline": "m:BaselineAction"} == found({"m.py": source})


def test_names_come_from_what_is_written_as_text_and_else_from_the_code(found: Found) -> None:
    source = f"""
from synapse_kernel import BaseAction, action
class CountBoxes(BaseAction):
{EXECUTE}
class Named(BaseAction):
    action_name = "by-attribute"
{EXECUTE}
class Typed(BaseAction):
    action_name: str = "by-typed-attribute"
{EXECUTE}
class Inherits(Named): ...
class Computed(BaseAction):
    action_name = "a" + "b"
{EXECUTE}
@action(name="by-argument")
def one(params): ...
@action
def by_function(params): ...
"""

    assert {
        "count_boxes": "m:CountBoxes",
        "by-attribute": "m:Inherits",
        "by-typed-attribute": "m:Typed",
        "computed": "m:Computed",
        "by-argument": "m:one",
        "by_function": "m:by_function",
    } == found({"m.py": source})


def test_descriptions_places_and_order_are_those_of_the_source(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "b.py": '''
                from synapse_kernel import BaseAction, action

                @action(description="Given.")
                def second(params):
                    """Not this."""

                class ThirdAction(BaseAction):
                    """
                    From the docstring.

                    Not from here.
                    """

                    async def execute(self): ...
            ''',
            "a/main.py": "from synapse_kernel import action\n\n@action\ndef first(params): ...",
        }
    )

    actions = PluginDiscovery.discover_actions(folder).actions

    assert [
        ("second", "b.py", 4, "Given."),
        ("third", "b.py", 7, "From the docstring."),
        ("first", "a/main.py", 4, ""),
    ] == [(a.name, a.file, a.line, a.description) for a in actions]


def test_nothing_is_executed(make_folder: MakeFolder, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    folder = make_folder(
        {
            "plugin/__init__.py": f"open({str(mark)!r}, 'w')\nraise SystemExit(3)",
            "plugin/main.py": """
                import a_package_nobody_has
                from synapse_kernel import action

                raise RuntimeError("at import")

                @action
                def count(params): ...
            """,
        }
    )

    assert ["count"] == [action.name for action in PluginDiscovery.discover_actions(folder).actions]
    assert not mark.exists()


def test_files_that_do_not_parse_are_reported_and_the_others_read(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "good.py": "from synapse_kernel import action\n\n@action\ndef count(params): ...",
            "sub/broken.py": "x = 1\ndef (\n",
        }
    )
    (folder / "binary.py").write_bytes(b"x = '\xff'\n")
    (folder / "zero.py").write_bytes(b"x = 1\0")

    result = PluginDiscovery.discover_actions(folder)

    assert ["count"] == [action.name for action in result.actions]
    told = {problem.file: str(problem) for problem in result.problems}
    assert {"binary.py", "sub/broken.py", "zero.py"} == set(told)
    assert "sub/broken.py line 2: invalid syntax" == told["sub/broken.py"]
    assert "null bytes" in told["zero.py"]


def test_source_in_another_encoding_is_read_as_it_declares(make_folder: MakeFolder) -> None:
    folder = make_folder({"a.py": ""})
    source = """# -*- coding: latin-1 -*-
from synapse_kernel import action
@action
def f(params):
    'Zähle.'
"""
    (folder / "a.py").write_bytes(source.encode("latin-1"))

    assert ["Zähle."] == [a.description for a in PluginDiscovery.discover_actions(folder).actions]


@pytest.mark.parametrize("folder", ["tests", "build", "venv", ".hidden", "__pycache__", "env_here", "wheels"])
def test_tests_and_installed_and_hidden_folders_are_passed_over(found: Found, folder: str) -> None:
    source = "from synapse_kernel import action\n\n@action\ndef count(params): ..."

    assert {} == found({f"{folder}/main.py": source, "env_here/pyvenv.cfg": ""})


def test_one_file_is_read_as_part_of_its_package(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {**BASES, "plugin/main.py": "from .base import Middle\nclass Train(Middle[int]): ..."}
    )

    result = PluginDiscovery.discover_actions(folder / "plugin" / "main.py")

    assert ["plugin.main:Train"] == [action.entrypoint for action in result.actions]
    assert (str(folder), [str(folder / "plugin" / "main.py")]) == (result.folder, result.files)


def test_a_folder_that_is_a_package_names_its_modules_from_inside(found: Found) -> None:
    files = {
        "__init__.py": "from synapse_kernel import BaseAction as Base\nfrom .mid import Mid",
        "mid.py": f"from . import Base\nfrom plugin_folder import Base as Same\nclass Mid(Same):\n{EXECUTE}",
        "main.py": "from plugin_folder.mid import Mid\nclass Train(Mid): ...",
    }

    assert {"mid": "mid:Mid", "train": "main:Train"} == found(files)


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TargetNotFoundError) as raised:
        PluginDiscovery.discover_actions(tmp_path / "nowhere")

    assert f"There is no {tmp_path / 'nowhere'}" == str(raised.value)
