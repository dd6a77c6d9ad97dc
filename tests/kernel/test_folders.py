"""Imports of plugin folders: each folder's code is its own, whatever it is called and however it imports."""

from __future__ import annotations

import importlib
import os
import pickle
import py_compile
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from synapse_kernel import folders

MakeFolder = Callable[..., Path]

# So that a file counts as young however long a test takes.
IN_THE_FUTURE = 4_000_000_000


def rewrite(file: Path, text: str) -> None:
    """Change a file so that its stamp changes too, even within one tick of the file system's clock."""
    file.write_text(text)
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def two_folders(make_folder: MakeFolder) -> list[Path]:
    return [
        make_folder(
            {
                "plugin/__init__.py": f"OWNER = {name!r}",
                "plugin/data.py": f"OWNER = {name!r}",
                "plugin/main.py": """
                    from plugin import OWNER, data

                    def late():
                        import plugin.data as module
                        from plugin.later import OWNER as later

                        return OWNER, data.OWNER, module.OWNER, later
                """,
                "plugin/later.py": f"OWNER = {name!r}",
            },
            name=name,
        )
        for name in ("first", "second")
    ]


def test_two_folders_with_one_package_name_each_run_their_own_code(make_folder: MakeFolder) -> None:
    first, second = (folders.load(folder, "plugin.main") for folder in two_folders(make_folder))

    assert ("first",) * 4 == first.late()
    assert ("second",) * 4 == second.late()


def test_two_folders_keep_apart_in_threads(make_folder: MakeFolder) -> None:
    """Imports inside functions too, while other threads do the same for the other folder."""
    both = two_folders(make_folder)

    def call(number: int) -> bool:
        folder = both[number % 2]
        return (folder.name,) * 4 == folders.load(folder, "plugin.main").late()

    with ThreadPoolExecutor(8) as pool:
        assert [True] * 200 == list(pool.map(call, range(200)))


def test_threads_that_load_a_folder_at_once_share_its_modules(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "one.py": "import time\ntime.sleep(0.05)\nimport two\n",
            "two.py": "import time\ntime.sleep(0.05)\nimport one\n",
        }
    )
    start = threading.Barrier(8)

    def load(number: int) -> tuple[object, object]:
        start.wait(60)
        first = folders.load(folder, "one" if number % 2 else "two")
        return (first, first.two) if number % 2 else (first.one, first)

    with ThreadPoolExecutor(8) as pool:
        assert 1 == len(set(pool.map(load, range(8))))


def test_no_name_of_a_folder_enters_sys_path_or_the_public_modules(make_folder: MakeFolder) -> None:
    path, names = list(sys.path), set(sys.modules)

    folders.load(two_folders(make_folder)[0], "plugin.main").late()

    assert path == sys.path
    assert all(name.startswith(folders.PREFIX) for name in set(sys.modules) - names)


@pytest.mark.parametrize(
    ("statement", "expression"),
    [
        ("import a.b.c", "a.b.c.VALUE"),
        ("import a.b.c as d", "d.VALUE"),
        ("import a.b", "a.b.FROM_INIT"),
        ("from a.b import c", "c.VALUE"),
        ("from a.b.c import VALUE as v", "v"),
        ("from a.b import *", "c.VALUE"),
        ("from . import top", "top.VALUE"),
        ("from .a.b import c", "c.VALUE"),
        ("from .a.b.c import *", "VALUE"),
        ("import top as t, a.b.c", "t.VALUE == a.b.c.VALUE and 5"),
        ("m = __import__('a.b.c')", "m.b.c.VALUE"),
        ("m = __import__('a.b.c', fromlist=['VALUE'])", "m.VALUE"),
        ("m = __import__('a.b', globals(), locals(), ['c'], 1)", "m.c.VALUE"),
        ("exec('import a.b.c as d')", "d.VALUE"),
        ("space = {}\nexec('import a.b.c as d', space)", "space['d'].VALUE"),
        ("import importlib\nm = importlib.import_module('.a.b.c', __package__)", "m.VALUE"),
        ("import bare.deep", "bare.deep.VALUE"),
        ("from bare import deep", "deep.VALUE"),
        ("try:\n    import missing_here as m\nexcept ImportError:\n    import top as m", "m.VALUE"),
        ("if True:\n    from a.b import c as m\nelse:\n    import missing_here", "m.VALUE"),
        ("import lazy", "lazy.VALUE"),
        ("from lazy import VALUE", "VALUE"),
        ("import sys", "sys.modules[__name__].sys is sys and 5"),
    ],
)
def test_every_form_of_import_finds_the_folders_own(
    make_folder: MakeFolder, statement: str, expression: str
) -> None:
    folder = make_folder(
        {
            "top.py": "VALUE = 5",
            "a/__init__.py": "",
            "a/b/__init__.py": "__all__ = ['c']\nFROM_INIT = 5",
            "a/b/c.py": "VALUE = 5",
            "bare/deep.py": "VALUE = 5",
            "lazy.py": """
                def __getattr__(name):
                    if name == "VALUE":
                        return 5
                    raise AttributeError(name)
            """,
        }
    )
    (folder / "main.py").write_text(f"{statement}\nresult = {expression}\n")

    assert 5 == folders.load(folder, "main").result


def test_imports_in_a_circle_work_as_they_do_elsewhere(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "plugin/__init__.py": "from plugin.a import A",
            "plugin/a.py": "import plugin.b as b\nfrom plugin import b as again\nA = b.B\nassert b is again",
            "plugin/b.py": "import plugin.a\nfrom plugin import a\nfrom . import a as same\nB = 7",
        }
    )

    assert 7 == folders.load(folder, "plugin").A


def test_a_circle_that_cannot_be_says_so_as_python_does(make_folder: MakeFolder) -> None:
    folder = make_folder({"a.py": "from b import B\nA = 1", "b.py": "from a import A\nB = 1"})

    with pytest.raises(ImportError, match="cannot import name 'A' from partially initialized module"):
        folders.load(folder, "a")


def test_data_files_lie_beside_the_code(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "plugin/__init__.py": "",
            "plugin/labels.txt": "cat\ndog\n",
            "plugin/main.py": """
                import pkgutil
                from importlib import resources
                from pathlib import Path

                by_file = (Path(__file__).parent / "labels.txt").read_text()
                by_package = pkgutil.get_data(__package__, "labels.txt").decode()
                by_resources = resources.files(__package__).joinpath("labels.txt").read_text()
            """,
        }
    )

    main = folders.load(folder, "plugin.main")

    assert ("cat\ndog\n",) * 3 == (main.by_file, main.by_package, main.by_resources)


def test_names_of_the_standard_library_win_over_files(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "types.py": "MINE = True",
            "queue/__init__.py": "MINE = True",
            "main.py": "import queue, types\nmine = [hasattr(m, 'MINE') for m in (queue, types)]",
        }
    )

    assert [False, False] == folders.load(folder, "main").mine


def test_an_entrypoint_may_name_a_file_called_like_a_standard_module(make_folder: MakeFolder) -> None:
    folder = make_folder({"types.py": "MINE = True"})

    assert folders.load(folder, "types").MINE


def test_a_file_wins_over_an_installed_package_and_a_mere_directory_does_not(make_folder: MakeFolder) -> None:
    """As the folder's first place on `sys.path` would have it."""
    folder = make_folder(
        {
            "yaml.py": "MINE = True",
            "click/readme.txt": "pictures of clicks",
            "main.py": "import click, yaml\nmine = [hasattr(m, 'MINE') for m in (click, yaml)]",
        }
    )

    main = folders.load(folder, "main")

    assert [False, True] == main.mine
    assert main.click is importlib.import_module("click")


def test_a_directory_is_the_folders_own_though_another_of_that_name_was_imported(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories without ``__init__.py`` on `sys.path` are no installed packages, imported or not."""
    elsewhere = make_folder({"spaceless/part.py": "OWNER = 'elsewhere'"}, name="elsewhere")
    folder = make_folder(
        {"spaceless/part.py": "OWNER = 'folder'", "main.py": "from spaceless.part import OWNER"}
    )
    monkeypatch.syspath_prepend(str(elsewhere))
    monkeypatch.delitem(sys.modules, "spaceless", raising=False)
    monkeypatch.delitem(sys.modules, "spaceless.part", raising=False)
    assert "elsewhere" == importlib.import_module("spaceless.part").OWNER

    assert "folder" == folders.load(folder, "main").OWNER


def test_the_kernel_is_never_the_folders_own(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {"synapse_kernel/__init__.py": "", "main.py": "from synapse_kernel import BaseAction"}
    )

    assert "synapse_kernel.actions" == folders.load(folder, "main").BaseAction.__module__


def test_a_folder_that_is_a_package_runs_its_init_and_may_call_itself_by_name(
    make_folder: MakeFolder,
) -> None:
    folder = make_folder(
        {
            "__init__.py": "HELP = 'from init'",
            "part.py": "PART = 1",
            "main.py": """
                from . import HELP, part
                from self_named import HELP as again
                import self_named.part as same
            """,
        },
        name="self_named",
    )

    main = folders.load(folder, "main")

    assert ("from init", "from init", True) == (main.HELP, main.again, main.part is main.same)
    assert main is folders.load(folder, "self_named.main")
    assert "from init" == folders.load(folder, "__init__").HELP


def test_a_changed_file_is_read_again_with_all_that_imported_it(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "from part import VALUE", "part.py": "VALUE = 1"})
    assert 1 == folders.load(folder, "main").VALUE

    rewrite(folder / "part.py", "VALUE = 2")

    assert 2 == folders.load(folder, "main").VALUE


def test_changes_of_one_second_and_one_size_are_all_seen(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytecode on disk is matched by the second, so it must not be taken for a file that young."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = make_folder({"main.py": ""})

    seen = []
    for value in range(8):
        (folder / "main.py").write_text(f"VALUE = {value}")
        os.utime(folder / "main.py", ns=(0, IN_THE_FUTURE * 10**9 + value * 10**6))
        seen.append(folders.load(folder, "main").VALUE)

    assert list(range(8)) == seen


def test_bytecode_is_kept_for_files_that_have_settled(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = make_folder({"old.py": "VALUE = 1", "young.py": "VALUE = 1"})
    os.utime(folder / "old.py", (1_000_000_000, 1_000_000_000))
    os.utime(folder / "young.py", (IN_THE_FUTURE, IN_THE_FUTURE))

    folders.load(folder, "old")
    folders.load(folder, "young")

    assert ["old"] == [file.name.partition(".")[0] for file in folder.glob("__pycache__/*")]


def test_an_unchanged_folder_keeps_its_modules(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": ""})

    assert folders.load(folder, "main") is folders.load(folder, "main")


def test_a_removed_module_is_gone(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "", "part.py": ""})
    folders.load(folder, "part")

    (folder / "part.py").unlink()

    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'part'$"):
        folders.load(folder, "part")


def test_forget_drops_what_was_imported(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "import part", "part.py": ""})
    before = folders.load(folder, "main")
    assert [str(folder / "main.py"), str(folder / "part.py")] == folders.files_of(folder)

    folders.forget(folder)

    assert [] == folders.files_of(folder)
    assert before is not folders.load(folder, "main")


@pytest.mark.parametrize("broken", ["raise RuntimeError('not yet')", "def (", "from part import nothing"])
def test_a_file_that_failed_is_read_again_once_it_is_fixed(make_folder: MakeFolder, broken: str) -> None:
    folder = make_folder({"main.py": "import part\nVALUE = part.VALUE", "part.py": broken})
    for _ in range(2):
        with pytest.raises((RuntimeError, SyntaxError, ImportError)):
            folders.load(folder, "main")

    rewrite(folder / "part.py", "VALUE = 'fixed'")

    assert "fixed" == folders.load(folder, "main").VALUE


def test_a_module_that_was_missing_is_found_as_soon_as_it_is_there(make_folder: MakeFolder) -> None:
    """Also where the folder's time stamp is too coarse to tell."""
    folder = make_folder({"plugin/__init__.py": "", "main.py": "from plugin.part import VALUE"})
    before = (folder / "plugin").stat()
    with pytest.raises(ModuleNotFoundError):
        folders.load(folder, "main")

    (folder / "plugin" / "part.py").write_text("VALUE = 3")
    os.utime(folder / "plugin", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert 3 == folders.load(folder, "main").VALUE


def test_an_import_in_a_function_that_failed_may_succeed_later(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "def late():\n    import part_of_later\n    return part_of_later.VALUE"})
    main = folders.load(folder, "main")
    with pytest.raises(ModuleNotFoundError):
        main.late()

    (folder / "part_of_later.py").write_text("VALUE = 4")
    os.utime(folder)
    importlib.invalidate_caches()

    assert 4 == main.late()


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("import plugin.nope", "plugin.nope"),
        ("from plugin.nope import x", "plugin.nope"),
        ("from .nope import x", "plugin.nope"),
        ("import nowhere_at_all", "nowhere_at_all"),
    ],
)
def test_a_missing_module_is_named_as_the_code_names_it(
    make_folder: MakeFolder, statement: str, missing: str
) -> None:
    folder = make_folder({"plugin/__init__.py": "", "plugin/main.py": statement})

    with pytest.raises(ModuleNotFoundError) as raised:
        folders.load(folder, "plugin.main")

    assert (f"No module named {missing!r}", missing) == (str(raised.value), raised.value.name)


def test_code_that_handles_a_missing_module_sees_the_name_it_wrote(make_folder: MakeFolder) -> None:
    folder = make_folder(
        {
            "plugin/__init__.py": "",
            "main.py": """
                try:
                    import plugin.fast as module
                except ModuleNotFoundError as error:
                    missing = error.name
            """,
        }
    )

    assert "plugin.fast" == folders.load(folder, "main").missing


def test_a_traceback_shows_the_folders_files(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "import part", "part.py": "1 / 0"})

    with pytest.raises(ZeroDivisionError) as raised:
        folders.load(folder, "main")

    shown = [
        f.filename for f in traceback.extract_tb(raised.value.__traceback__) if str(folder) in f.filename
    ]
    assert [str(folder / "main.py"), str(folder / "part.py")] == shown


def test_a_reload_does_not_disturb_an_import_under_way_in_another_thread(make_folder: MakeFolder) -> None:
    """Modules that vanish from `sys.modules` while they are imported would fail that import."""
    folder = make_folder(
        {
            "main.py": """
                import threading

                VALUE = 1
                REACHED, GO = threading.Event(), threading.Event()

                def late():
                    import slow

                    return slow.VALUE
            """,
            "slow.py": """
                import main

                main.REACHED.set()
                assert main.GO.wait(60)

                from part import VALUE
            """,
            "part.py": "VALUE = 5",
        }
    )
    main = folders.load(folder, "main")
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(main.late)
        assert main.REACHED.wait(60)
        rewrite(folder / "main.py", "VALUE = 2")
        folders.load(folder, "main")
        main.GO.set()
        assert 5 == late.result(60)

    assert 2 == folders.load(folder, "main").VALUE


CLASSES = {
    "plugin/__init__.py": "",
    "plugin/items.py": """
        from plugin.base import Base

        class Item(Base):
            def __init__(self, value):
                self.value = value

        def doubled(item):
            from plugin.late import twice

            return Item(twice(item.value))
    """,
    "plugin/base.py": "class Base: pass",
    "plugin/late.py": "def twice(value):\n    return value * 2",
}


def test_an_object_goes_to_a_spawned_process_and_back(make_folder: MakeFolder) -> None:
    items = folders.load(make_folder(CLASSES, name="odd.name with ü%2E"), "plugin.items")

    with get_context("spawn").Pool(1) as pool:
        back = pool.apply(items.doubled, (items.Item(21),))

    assert (items.Item, 42) == (type(back), back.value)


def test_an_object_is_unpickled_by_a_process_that_only_imports_the_kernel(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    items = folders.load(make_folder(CLASSES), "plugin.items")
    kept = tmp_path / "item.pickle"
    kept.write_bytes(pickle.dumps(items.Item(21)))

    script = f"import pickle; print(pickle.load(open({str(kept)!r}, 'rb')).value)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ("21\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["dotted.name", "a b", "ü", "50%", "%2E", "a#b?c:d;[e]", "~tilde"])
def test_a_folder_of_any_name_can_be_read_back_from_its_modules(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder({"main.py": "VALUE = 1"}, name=name)

    main = folders.load(folder, "main")

    assert (1, (str(folder.resolve()), "main")) == (main.VALUE, folders.split(main.__name__))


def test_a_folder_whose_name_is_not_text_works(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    (folder / "main.py").write_text("VALUE = 1")

    assert 1 == folders.load(folder, "main").VALUE


def test_a_name_that_is_no_folders_is_not_split() -> None:
    assert folders.split("plugin.main") is None
    assert ("/srv/a", "__init__") == folders.split(f"{folders.PREFIX}/srv/a")


def test_a_link_to_a_folder_is_that_folder(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder({"main.py": ""})
    (tmp_path / "link").symlink_to(folder)

    assert folders.load(folder, "main") is folders.load(tmp_path / "link", "main")


def test_a_folder_shipped_as_bytecode_imports_its_own(make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": "from part import VALUE", "part.py": "VALUE = 6"})
    for file in list(folder.glob("*.py")):
        py_compile.compile(str(file), cfile=f"{file}c")
        file.unlink()

    assert 6 == folders.load(folder, "main").VALUE


def test_tools_that_look_at_code_find_it(make_folder: MakeFolder) -> None:
    """Type hints as text, dataclasses and `inspect` all go through the module's name."""
    folder = make_folder(
        {
            "main.py": """
                from __future__ import annotations

                import dataclasses
                import inspect
                import typing

                from part import Part

                @dataclasses.dataclass
                class Whole:
                    part: Part

                hints = typing.get_type_hints(Whole)
                source = inspect.getsource(Whole)
            """,
            "part.py": "class Part: pass",
        }
    )

    main = folders.load(folder, "main")

    assert {"part": main.Part} == main.hints
    assert "@dataclasses.dataclass\nclass Whole:\n    part: Part\n" == main.source


def test_the_modules_beside_a_missing_one_are_known(make_folder: MakeFolder) -> None:
    folder = make_folder({"top.py": "", "plugin/__init__.py": "", "plugin/train.py": "", "data/a.txt": ""})

    assert ["plugin", "top"] == folders.beside(folder, "tip")
    assert ["train"] == folders.beside(folder, "plugin.trian")
