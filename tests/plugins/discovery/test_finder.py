"""What a target means to the kernel, and that what was found is kept until the files change."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synapse_kernel import (
    ActionNotFoundError,
    ActionsSpec,
    ConfigError,
    EntrypointError,
    Kernel,
    TargetNotFoundError,
    hookimpl,
)

MakeFolder = Callable[..., Path]

SOURCE = "from synapse_kernel import action\n\n@action\ndef {name}(params):\n    return {value!r}\n"


def rewrite(file: Path, text: str) -> None:
    """Write a file so that its stamp, and its folder's, differ from all before."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    for path in (file, file.parent):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def configured(*names: str) -> str:
    return "name: x\nactions:\n" + "".join(f"  {name}: 'main:{name}'\n" for name in names)


@pytest.mark.parametrize("form", ["folder", "config", "relative", "dotted", "home", "slash"])
def test_every_form_of_a_path_is_the_folder(
    kernel: Kernel, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = make_folder(
        {"config.yaml": configured("count"), "main.py": SOURCE.format(name="count", value=1)}
    )
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    target = {
        "folder": str(folder),
        "config": str(folder / "config.yaml"),
        "relative": folder.name,
        "dotted": f"./{folder.name}",
        "home": f"~/{folder.name}",
        "slash": f"{folder}/",
    }[form]

    assert (target, 1) == (kernel.discover(target).target, kernel.run(target, "count", {}).unwrap())


def test_a_folder_of_source_alone_is_found_by_its_bare_name_too(
    kernel: Kernel, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder({"main.py": SOURCE.format(name="count", value=1)}, name="source_alone")
    monkeypatch.chdir(folder.parent)

    assert 1 == kernel.run("source_alone", "count", {}).unwrap()


def test_a_python_file_is_a_target(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": SOURCE.format(name="count", value=1)})

    assert 1 == kernel.run(str(folder / "main.py"), "count", {}).unwrap()


def test_a_module_is_a_target(
    kernel: Kernel, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(
        str(make_folder({"finder_target.py": SOURCE.format(name="count", value="module")}))
    )

    assert "module" == kernel.run("finder_target", "count", {}).unwrap()


def test_an_installed_action_plugin_is_a_target_by_its_name(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(
        str(make_folder({"shipped_code.py": SOURCE.format(name="count", value="shipped")}))
    )

    class Shipping:
        @hookimpl
        def synapse_register_actions(self) -> list[ActionsSpec]:
            return [
                ActionsSpec(name="box-tools", target="shipped_code"),
                ActionsSpec(name="broken-tools", target="code_nobody_has"),
            ]

    with Kernel(plugins=[Shipping()]) as kernel:
        assert ("box-tools", "shipped") == (
            kernel.discover("box-tools").target,
            kernel.run("box-tools", "count", {}).unwrap(),
        )
        with pytest.raises(TargetNotFoundError, match="did you mean 'box-tools'"):
            kernel.discover("box-tool")
        with pytest.raises(EntrypointError) as raised:
            kernel.discover("broken-tools")
    assert str(raised.value).startswith("The action plugin 'broken-tools' of ")
    assert str(raised.value).endswith(" does not import: There is no module 'code_nobody_has'")


def test_an_unknown_target_is_told_with_what_would_do(kernel: Kernel) -> None:
    with pytest.raises(TargetNotFoundError) as raised:
        kernel.discover("synapse_kernal")

    assert (
        "Nothing is known of 'synapse_kernal'; did you mean 'synapse_kernel'?\n"
        "  give a folder with a config.yaml, a Python file, a module or an installed action plugin\n"
        "  installed: none"
    ) == str(raised.value)


def test_a_path_that_is_not_there_is_told_with_the_nearest(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": ""}, name="counter")

    for missing, near in ((folder.parent / "countre", "counter"), (folder / "mian.py", "main.py")):
        with pytest.raises(TargetNotFoundError) as raised:
            kernel.discover(str(missing))
        assert f"There is no {missing}; did you mean {near!r}?" == str(raised.value)


def test_a_missing_module_of_a_package_is_told_with_the_nearest(kernel: Kernel) -> None:
    with pytest.raises(TargetNotFoundError) as raised:
        kernel.discover("synapse_kernel.contexts")

    assert "There is no module 'synapse_kernel.contexts'; did you mean 'synapse_kernel.context'?" == str(
        raised.value
    )


def test_a_missing_action_is_told_with_the_nearest(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"config.yaml": configured("count", "train")})

    with pytest.raises(ActionNotFoundError) as raised:
        kernel.run(str(folder), "coutn", {})

    assert f"{folder} has no action 'coutn'; did you mean 'count'?\n  actions there: count, train" == str(
        raised.value
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("import a_package_nobody_has", "ModuleNotFoundError: No module named 'a_package_nobody_has'"),
    ],
)
def test_a_module_that_fails_at_import_says_why(
    kernel: Kernel, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    monkeypatch.syspath_prepend(str(make_folder({"failing_target.py": body})))

    with pytest.raises(EntrypointError) as raised:
        kernel.discover("failing_target")

    assert f"The module 'failing_target' does not import: {reason}" == str(raised.value)


def test_what_was_found_is_kept_while_nothing_changes(kernel: Kernel, make_folder: MakeFolder) -> None:
    with_config = make_folder({"config.yaml": configured("count")}, name="with_config")
    source = make_folder({"main.py": SOURCE.format(name="count", value=1)}, name="source")

    for folder in (with_config, source):
        assert kernel.discover(str(folder)) is kernel.discover(str(folder))


def test_a_changed_config_is_read_again(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"config.yaml": configured("count")})
    assert ["count"] == list(kernel.discover(str(folder)).actions)

    rewrite(folder / "config.yaml", configured("count", "train"))
    assert ["count", "train"] == list(kernel.discover(str(folder)).actions)

    rewrite(folder / "config.yaml", "name: [")
    with pytest.raises(ConfigError):
        kernel.discover(str(folder))


@pytest.mark.parametrize("config", [None, "name: x\nactions: {count: {}}\n"])
def test_source_that_is_changed_added_or_removed_is_read_again(
    kernel: Kernel, make_folder: MakeFolder, config: str | None
) -> None:
    """Without a config, and with one that leaves an entrypoint to be found."""
    folder = make_folder({"main.py": SOURCE.format(name="count", value=1), "sub/data.txt": ""})
    if config is not None:
        (folder / "config.yaml").write_text(config)
    target = str(folder)
    assert "main:count" == kernel.discover(target).actions["count"].ref.entrypoint

    rewrite(folder / "main.py", SOURCE.format(name="other", value=1))
    rewrite(folder / "sub" / "late.py", SOURCE.format(name="count", value=2))
    assert "sub.late:count" == kernel.discover(target).actions["count"].ref.entrypoint

    (folder / "sub" / "late.py").unlink()
    rewrite(folder / "main.py", SOURCE.format(name="count", value=3))
    assert 3 == kernel.run(target, "count", {}).unwrap()


def test_a_config_that_appears_is_used_from_then_on(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"main.py": SOURCE.format(name="count", value=1)})
    assert ["count"] == list(kernel.discover(str(folder)).actions)

    rewrite(folder / "config.yaml", "name: x\nactions: {named: 'main:count'}")
    assert ["named"] == list(kernel.discover(str(folder)).actions)

    (folder / "config.yaml").unlink()
    assert ["count"] == list(kernel.discover(str(folder)).actions)


def test_changed_code_is_run_by_the_next_run(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder(
        {"config.yaml": configured("count"), "main.py": SOURCE.format(name="count", value=1)}
    )
    assert 1 == kernel.run(str(folder), "count", {}).unwrap()

    rewrite(folder / "main.py", SOURCE.format(name="count", value="changed"))

    assert "changed" == kernel.run(str(folder), "count", {}).unwrap()


def test_two_folders_run_side_by_side_in_threads(kernel: Kernel, make_folder: MakeFolder) -> None:
    main = """
        from synapse_kernel import action

        @action
        def who(params):
            from plugin.owner import OWNER

            return OWNER
    """
    folders = [
        make_folder(
            {
                "config.yaml": "name: x\nactions: {who: 'plugin.main:who'}",
                "plugin/main.py": main,
                "plugin/owner.py": f"OWNER = {name!r}",
            },
            name=name,
        )
        for name in ("first", "second")
    ]

    def run(number: int) -> object:
        return kernel.run(str(folders[number % 2]), "who", {}).unwrap()

    with ThreadPoolExecutor(4) as pool:
        assert ["first", "second"] * 20 == list(pool.map(run, range(40)))


def test_two_kernels_keep_what_they_found_apart(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder({"config.yaml": configured("count")})

    with Kernel() as other:
        assert kernel.discover(str(folder)) == other.discover(str(folder))
        assert kernel.discover(str(folder)) is not other.discover(str(folder))


def test_files_that_do_not_parse_are_told_with_what_was_found(
    kernel: Kernel, make_folder: MakeFolder
) -> None:
    folder = make_folder({"main.py": SOURCE.format(name="count", value=1), "bad.py": "def ("})

    assert ["bad.py line 1: invalid syntax"] == kernel.discover(str(folder)).problems
    assert 1 == kernel.run(str(folder), "count", {}).unwrap()


def test_no_module_of_a_folder_stays_under_a_public_name(kernel: Kernel, make_folder: MakeFolder) -> None:
    folder = make_folder(
        {"config.yaml": configured("count"), "main.py": SOURCE.format(name="count", value=1)}
    )
    kernel.run(str(folder), "count", {})

    assert "main" not in sys.modules
