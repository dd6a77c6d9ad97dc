"""When a cached result counts: same code, same params, same content; in doubt it does not."""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, FilePath, NewPath

from synapse_kernel import Kernel, action
from synapse_kernel.actions import BaseAction
from synapse_kernel.errors import UsageError
from synapse_kernel.preparation import resolve_action
from synapse_kernel.results import TrainResult
from synapse_plugins.pipelines import contents
from synapse_plugins.pipelines.contents import content_hash
from synapse_plugins.pipelines.fingerprints import cache_key, code_fingerprint, outputs_present

Fingerprint = Callable[..., str]

ACTION = "from synapse_kernel import action\n\n@action\ndef do(params, ctx):\n    pass\n"
PACKAGE = {"kit/__init__.py": "", "kit/actions.py": ACTION, "kit/inner/tool.py": ""}


@pytest.fixture
def fingerprint(kernel: Kernel) -> Fingerprint:
    """Return a function that takes the fingerprint of a target's action."""

    def take(target: object, name: str | None = None) -> str:
        _, spec, code = resolve_action(kernel, target, name)
        return code_fingerprint(spec, code)

    return take


@pytest.fixture
def plugin(make_folder: Callable[..., Path]) -> Path:
    """Return a plugin folder with an action in two modules."""
    return make_folder(
        {
            "config.yaml": "name: P\ncode: p\nversion: 1.0\nactions: {do: plugin.main:do}\n",
            "plugin/main.py": """
                from synapse_kernel import action
                from plugin.numbers_of import NUMBER

                @action
                def do(params, ctx):
                    return NUMBER
            """,
            "plugin/numbers_of.py": "NUMBER = 1\n",
        }
    )


class TestCodeOfAFolder:
    def test_it_is_the_same_as_long_as_no_file_changes(self, plugin: Path, fingerprint: Fingerprint) -> None:
        assert fingerprint(str(plugin)) == fingerprint(str(plugin))

    @pytest.mark.parametrize("file", ["plugin/main.py", "plugin/numbers_of.py", "config.yaml"])
    def test_a_change_to_any_of_its_sources_changes_it(
        self, plugin: Path, fingerprint: Fingerprint, file: str
    ) -> None:
        before = fingerprint(str(plugin))
        with (plugin / file).open("a") as stream:
            stream.write("\n# a comment\n")

        assert before != fingerprint(str(plugin))

    def test_a_new_source_changes_it(self, plugin: Path, fingerprint: Fingerprint) -> None:
        before = fingerprint(str(plugin))
        (plugin / "plugin" / "late.py").write_text("")

        assert before != fingerprint(str(plugin))

    @pytest.mark.parametrize(
        "file",
        [
            "plugin/__pycache__/main.cpython-311.pyc",
            ".git/hooks/pre.py",
            ".tox/x.py",
            "node_modules/gyp.py",
            "env/pyvenv.cfg",
            "README.md",
            "data/image.png",
            "plugin/.#main.py",
        ],
    )
    def test_what_tools_and_data_leave_there_does_not_count(
        self, plugin: Path, fingerprint: Fingerprint, file: str
    ) -> None:
        before = fingerprint(str(plugin))
        place = plugin / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")
        if place.name == "pyvenv.cfg":
            (place.parent / "lib.py").write_text("")

        assert before == fingerprint(str(plugin))

    def test_it_does_not_depend_on_where_the_folder_lies(
        self, plugin: Path, fingerprint: Fingerprint, tmp_path: Path
    ) -> None:
        before = fingerprint(str(plugin))
        plugin.rename(tmp_path / "elsewhere")

        assert before == fingerprint(str(tmp_path / "elsewhere"))

    def test_two_actions_of_one_folder_differ(
        self, make_folder: Callable[..., Path], fingerprint: Fingerprint
    ):
        folder = make_folder(
            {
                "config.yaml": "name: P\ncode: p\nversion: 1.0\nactions: {a: m:a, b: m:b}\n",
                "m.py": "from synapse_kernel import action\n\n@action\ndef a():\n    pass\n\n"
                "@action\ndef b():\n    pass\n",
            }
        )

        assert fingerprint(str(folder), "a") != fingerprint(str(folder), "b")

    def test_a_link_that_leads_round_in_a_circle_ends(self, plugin: Path, fingerprint: Fingerprint) -> None:
        (plugin / "plugin" / "again").symlink_to(plugin)

        assert fingerprint(str(plugin)) == fingerprint(str(plugin))


class TestCodeOfASingleFile:
    @pytest.fixture
    def folder(self, make_folder: Callable[..., Path]) -> Path:
        return make_folder(
            {
                "work.py": """
                    from synapse_kernel import action

                    @action
                    def do(params, ctx):
                        from pieces import first
                        return first.VALUE
                """,
                "pieces/__init__.py": "",
                "pieces/first.py": "from . import second\nVALUE = second.VALUE\n",
                "pieces/second.py": "import deep.down\nVALUE = 2\n",
                "deep/down.py": "",
                "broken.py": "def (",
                "other.py": "",
            }
        )

    @pytest.mark.parametrize(
        "file", ["work.py", "pieces/__init__.py", "pieces/first.py", "pieces/second.py", "deep/down.py"]
    )
    def test_it_counts_with_the_neighbours_that_it_imports(
        self, folder: Path, fingerprint: Fingerprint, file: str
    ) -> None:
        before = fingerprint(str(folder / "work.py"))
        (folder / file).write_text((folder / file).read_text() + "# changed\n")

        assert before != fingerprint(str(folder / "work.py"))

    @pytest.mark.parametrize("file", ["other.py", "broken.py"])
    def test_neighbours_that_it_does_not_import_do_not_count(
        self, folder: Path, fingerprint: Fingerprint, file: str
    ) -> None:
        before = fingerprint(str(folder / "work.py"))
        (folder / file).write_text("# changed\n")

        assert before == fingerprint(str(folder / "work.py"))


class TestCodeOfAModule:
    def test_a_package_counts_with_all_its_sources(
        self, make_distribution: Callable[..., Path], fingerprint: Fingerprint
    ) -> None:
        site = make_distribution("kit", PACKAGE, {})
        before = fingerprint("kit.actions")
        (site / "kit" / "inner" / "tool.py").write_text("# changed\n")

        assert before != fingerprint("kit.actions")

    def test_it_counts_with_the_version_of_its_distribution(
        self, make_distribution: Callable[..., Path], fingerprint: Fingerprint
    ) -> None:
        site = make_distribution("kit", PACKAGE, {})
        before = fingerprint("kit.actions")
        (site / "kit-1.0.dist-info").rename(site / "kit-2.0.dist-info")
        (site / "kit-2.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: kit\nVersion: 2.0\n"
        )
        importlib.invalidate_caches()

        assert before != fingerprint("kit.actions")

    def test_a_module_of_the_current_folder_counts_with_what_it_imports_there(
        self, make_folder: Callable[..., Path], fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_folder(
            {
                "lone_work.py": f"import lone_part\n{ACTION}",
                "lone_part.py": "",
                "lone_other.py": "",
            }
        )
        monkeypatch.syspath_prepend(str(folder))
        before = fingerprint("lone_work")
        (folder / "lone_other.py").write_text("# changed")
        other = fingerprint("lone_work")
        (folder / "lone_part.py").write_text("# changed")

        assert before == other
        assert before != fingerprint("lone_work")

    def test_a_class_counts_with_the_modules_of_those_it_derives_from(
        self, make_distribution: Callable[..., Path], fingerprint: Fingerprint
    ) -> None:
        make_distribution("kit", {"kit/__init__.py": "", "kit/parts.py": "class Part:\n    size = 1\n"}, {})
        part = importlib.import_module("kit.parts").Part

        class Derived(BaseAction, part):
            def execute(self):
                return self.size

        before = fingerprint(Derived)
        Path(importlib.import_module("kit.parts").__file__).write_text("class Part:\n    size = 2\n")

        assert before != fingerprint(Derived)


class TestCodeOfAnObject:
    def test_functions_that_captured_different_values_differ(self, fingerprint: Fingerprint) -> None:
        def made(number: int):
            @action
            def do(params, ctx):
                return number

            return do

        assert fingerprint(made(1)) == fingerprint(made(1))
        assert fingerprint(made(1)) != fingerprint(made(2))

    def test_what_was_captured_and_is_no_plain_data_is_never_the_same(self, fingerprint: Fingerprint) -> None:
        class Hidden:
            def __repr__(self) -> str:
                return "always the same"

        hidden, inside = Hidden(), [Hidden()]

        def made(value: object):
            @action
            def do(params, ctx, *, size=None):
                return value

            return do

        assert fingerprint(made(hidden)) != fingerprint(made(hidden))
        assert fingerprint(made(inside)) != fingerprint(made(inside))
        plain = {"a": [1, 2.5, (None, True)]}
        assert fingerprint(made(plain)) == fingerprint(made(dict(plain)))
        assert fingerprint(made([1])) != fingerprint(made([True]))

    def test_functions_with_different_defaults_differ(self, fingerprint: Fingerprint) -> None:
        def made(number: int):
            @action
            def do(params, ctx, *, size=number):
                return size

            return do

        assert fingerprint(made(1)) != fingerprint(made(2))

    def test_an_object_without_any_source_is_never_the_same(self, fingerprint: Fingerprint) -> None:
        space: dict[str, object] = {"action": action, "__name__": "typed_in"}
        exec("@action\ndef do(params, ctx):\n    return 1\n", space)

        assert fingerprint(space["do"]) != fingerprint(space["do"])

    def test_an_object_of_a_module_counts_with_the_modules_file(
        self, make_folder: Callable[..., Path], fingerprint: Fingerprint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_folder({"lone_made.py": ACTION})
        monkeypatch.syspath_prepend(str(folder))
        do = importlib.import_module("lone_made").do
        before = fingerprint(do)
        (folder / "lone_made.py").write_text("# gone")

        assert before != fingerprint(do)

    def test_an_action_that_was_loaded_from_a_folder_counts_as_the_folder(
        self, plugin: Path, kernel: Kernel, fingerprint: Fingerprint
    ) -> None:
        do = resolve_action(kernel, str(plugin), None)[2].obj
        before = fingerprint(do)
        (plugin / "plugin" / "numbers_of.py").write_text("NUMBER = 2\n")

        assert before != fingerprint(do)


class Inner(BaseModel):
    mask: Path | None = None
    word: str = ""


class Params(BaseModel):
    data: FilePath | None = None
    many: list[Path] = []
    named: dict[str, Path] = {}
    inner: Inner = Inner()
    out: NewPath | None = None
    word: str = ""
    size: float = 1.0


class TestKeys:
    def test_it_does_not_depend_on_the_order_of_params(self) -> None:
        assert cache_key("c", {"a": 1, "b": {"x": 1, "y": 2}}) == cache_key(
            "c", {"b": {"y": 2, "x": 1}, "a": 1}
        )

    def test_code_params_inputs_and_version_each_count(self, tmp_path: Path) -> None:
        keys = {
            cache_key("c", {"a": 1}),
            cache_key("d", {"a": 1}),
            cache_key("c", {"a": 2}),
            cache_key("c", {"a": "1"}),
            cache_key("c", {"a": 1}, version="1.0"),
            cache_key("c", {"a": 1}, inputs=[tmp_path]),
            cache_key("c", {"a": 1}, inputs=["nowhere"]),
        }

        assert 7 == len(keys)

    def test_the_content_of_a_path_counts_and_its_name_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "b.txt").write_text("one")
        (tmp_path / "c.txt").write_text("two")

        def key(name: str) -> str:
            return cache_key("c", Params(data=tmp_path / name), params_type=Params)

        assert key("a.txt") == key("b.txt")
        assert key("a.txt") != key("c.txt")

    @pytest.mark.parametrize(
        "given",
        [
            lambda file: {"data": file},
            lambda file: {"many": [file]},
            lambda file: {"named": {"x": file}},
            lambda file: {"inner": {"mask": file}},
        ],
        ids=["field", "list", "mapping", "model inside"],
    )
    def test_a_path_counts_by_content_wherever_its_type_says_so(
        self, tmp_path: Path, given: Callable[[str], dict[str, object]]
    ) -> None:
        file = tmp_path / "a.txt"
        file.write_text("one")
        before = cache_key("c", given(str(file)), params_type=Params)
        file.write_text("other")

        assert before != cache_key("c", given(str(file)), params_type=Params)

    @pytest.mark.parametrize(
        "given",
        [lambda file: {"word": file}, lambda file: {"inner": {"word": file}}, lambda file: {"out": file}],
        ids=["text", "text inside", "new path"],
    )
    def test_text_and_paths_that_are_yet_to_be_made_count_as_they_are(
        self, tmp_path: Path, given: Callable[[str], dict[str, object]]
    ) -> None:
        file = tmp_path / "a.txt"
        before = cache_key("c", given(str(file)), params_type=Params)
        file.write_text("one")

        assert before == cache_key("c", given(str(file)), params_type=Params)

    def test_a_path_with_nothing_there_counts_by_its_text(self, tmp_path: Path) -> None:
        def key(name: str) -> str:
            return cache_key("c", {"many": [name]}, params_type=Params)

        assert key(str(tmp_path / "a")) == key(str(tmp_path / "a"))
        assert key(str(tmp_path / "a")) != key(str(tmp_path / "b"))
        assert key("a\0b") == key("a\0b")

    def test_a_dataclass_says_what_is_a_path_too(self, tmp_path: Path) -> None:
        @dataclasses.dataclass
        class Own:
            data: Path

        (tmp_path / "a").write_text("one")
        (tmp_path / "b").write_text("one")

        assert cache_key("c", Own(tmp_path / "a"), params_type=Own) == cache_key(
            "c", Own(tmp_path / "b"), params_type=Own
        )

    def test_declared_inputs_count_by_content(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        before = cache_key("c", {}, inputs=[tmp_path / "a"])
        (tmp_path / "a" / "x").write_text("")

        assert before != cache_key("c", {}, inputs=[tmp_path / "a"])

    def test_params_that_are_not_json_are_refused(self) -> None:
        with pytest.raises(UsageError) as raised:
            cache_key("c", {"model": object()})

        assert (
            "The result cannot be cached: params['model'] is of type object, "
            "which cannot be compared with that of another run\n"
            "  give params that are JSON, or take `cache` off the node"
        ) == str(raised.value)


class TestContents:
    def test_nothing_there_has_no_hash(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        assert [None, None] == [content_hash(tmp_path / "gone"), content_hash(tmp_path / "file" / "inside")]

    def test_a_folder_counts_by_names_and_contents_at_any_depth(self, tmp_path: Path) -> None:
        folder = tmp_path / "d"
        (folder / "a" / "b").mkdir(parents=True)
        seen = [content_hash(folder)]
        for change in (
            lambda: (folder / "a" / "b" / "x.txt").write_text("one"),
            lambda: (folder / "a" / "b" / "x.txt").write_text("two"),
            lambda: (folder / "a" / "b" / "x.txt").rename(folder / "a" / "b" / "y.txt"),
            (folder / "empty").mkdir,
            lambda: (folder / ".hidden").write_text(""),
        ):
            change()
            seen.append(content_hash(folder))

        assert len(seen) == len(set(seen))
        assert content_hash(folder) == content_hash(folder)

    def test_a_file_is_not_an_equal_folder(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "f").write_text("")

        assert content_hash(tmp_path / "d") != content_hash(tmp_path / "f")

    def test_links_count_by_what_they_lead_to(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x").write_text("one")
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "link").symlink_to(tmp_path / "real")
        before = content_hash(tmp_path / "d")
        (tmp_path / "real" / "x").write_text("two")

        assert before != content_hash(tmp_path / "d")

    def test_links_that_lead_round_or_nowhere_end(self, tmp_path: Path) -> None:
        folder = tmp_path / "d"
        folder.mkdir()
        (folder / "up").symlink_to(tmp_path)
        (folder / "also_up").symlink_to(tmp_path)
        (folder / "self").symlink_to(folder / "self")
        (folder / "nowhere").symlink_to(folder / "gone")

        before = content_hash(folder)
        assert before == content_hash(folder)
        (folder / "nowhere").unlink()
        (folder / "nowhere").symlink_to(folder / "other")

        assert before is not None
        assert before != content_hash(folder)

    def test_a_pipe_is_not_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        assert content_hash(tmp_path) != content_hash(tmp_path)

    def test_a_file_that_does_not_change_is_read_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_text("one")
        read: list[object] = []
        digest = contents.hashlib.file_digest
        monkeypatch.setattr(contents.hashlib, "file_digest", lambda *a: (read.append(a), digest(*a))[1])
        monkeypatch.setattr(contents.time, "time", lambda: time.monotonic() + 1e12)

        assert content_hash(tmp_path / "a") == content_hash(tmp_path / "a")
        assert 1 == len(read)

    def test_a_change_that_keeps_size_and_time_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contents.time, "time", lambda: time.monotonic() + 1e12)
        file = tmp_path / "a"
        file.write_text("one")
        os.utime(file, ns=(10**18, 10**18))
        before, changed = content_hash(file), file.stat().st_ctime_ns
        while changed == file.stat().st_ctime_ns:
            file.write_text("two")
            os.utime(file, ns=(10**18, 10**18))

        assert before != content_hash(file)

    def test_a_file_that_may_still_change_within_the_same_tick_is_read_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_text("one")
        monkeypatch.setattr(contents.time, "time", lambda: (tmp_path / "a").stat().st_mtime)
        kept = len(contents._kept)
        content_hash(tmp_path / "a")

        assert kept == len(contents._kept)


class Made(BaseModel):
    folder: Path
    others: list[Path] = []
    name: str = ""


class TestOutputs:
    def test_paths_that_the_type_names_must_be_there(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        there, gone = str(tmp_path / "a"), str(tmp_path / "b")

        def present(result: object) -> bool:
            return outputs_present(result, Made)

        assert [True, False, False, True] == [
            present({"folder": there}),
            present({"folder": gone}),
            present({"folder": there, "others": [there, gone]}),
            present({"folder": there, "name": gone}),
        ]
        assert not present(Made(folder=tmp_path / "b"))

    def test_absolute_paths_under_the_usual_names_must_be_there(self, tmp_path: Path) -> None:
        gone = str(tmp_path / "gone")

        assert [False, False, False, True, True, True] == [
            outputs_present(TrainResult(weights_path=gone), TrainResult),
            outputs_present({"path": gone}),
            outputs_present({"runs": [{"out_dir": gone}]}),
            outputs_present({"path": "s3://bucket/gone"}),
            outputs_present({"text": gone}),
            outputs_present(TrainResult(weights_path=str(tmp_path)), TrainResult),
        ]

    def test_results_of_any_kind_are_looked_through(self, tmp_path: Path) -> None:
        assert [True, True, False, True] == [
            outputs_present(None),
            outputs_present(object()),
            outputs_present({"x": tmp_path / "gone", "y": object()}),
            outputs_present([1, "a", {"b": 2.0}]),
        ]
