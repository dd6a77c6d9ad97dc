"""What every test shares."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before any of it is imported: some tests take parts of the contracts without the whole.
pytest.register_assert_rewrite("synapse_kernel.testing")

from synapse_kernel import Kernel, current  # noqa: E402


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Return a strict kernel with the built-in plugins and default settings."""
    with Kernel(strict=True) as made:
        yield made


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder from relative paths to texts, dedented."""

    def make(files: dict[str, str], name: str = "plugin_folder") -> Path:
        folder = tmp_path / name
        for relative, text in files.items():
            file = folder / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return folder

    return make


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a state folder of its own, no SYNAPSE_* variable of the caller's, no kernel."""
    import os

    current._own_kernel.cache_clear()

    for name in [n for n in os.environ if n.startswith("SYNAPSE_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SYNAPSE_HOME", str(home))
    return home


@pytest.fixture
def make_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that installs a distribution: modules and dist-info, in a folder on sys.path."""
    import sys

    def make(
        name: str, modules: dict[str, str], entry_points: dict[str, str], *, version: str = "1.0"
    ) -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        entries = "\n".join(f"{entry} = {value}" for entry, value in entry_points.items())
        files = {site / path: textwrap.dedent(text).lstrip("\n") for path, text in modules.items()}
        files[info / "METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[info / "entry_points.txt"] = f"[synapse_kernel.plugins]\n{entries}\n"
        files[info / "RECORD"] = "".join(f"{file.relative_to(site)},,\n" for file in files)
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(site))
        return site

    yield make
    for module_name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{tmp_path}/site-"):
            del sys.modules[module_name]
