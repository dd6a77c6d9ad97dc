"""`synapse-kernel plugins` works, above all when plugins are broken."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def with_broken_plugins(make_folder: Callable[..., Path]) -> dict[str, str]:
    """Install distributions that fail in every way into a folder on the path; return the variables for it."""
    entries = {"raises": "acme_raises", "exits": "acme_exits", "future": "acme_future", "typo": "acme_typo"}
    lines = "\n".join(f"{name} = {module}" for name, module in entries.items())
    site = make_folder(
        {
            "acme_raises.py": "raise RuntimeError('out of coffee')\n",
            "acme_exits.py": "raise SystemExit(7)\n",
            "acme_future.py": "SYNAPSE_API = 99\n",
            "acme_typo.py": """
                from synapse_kernel import hookimpl

                @hookimpl
                def synapse_register_exekutors():
                    return []
            """,
            "acme-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n",
            "acme-1.2.dist-info/RECORD": "",
        },
        name="site",
    )
    (site / "acme-1.2.dist-info" / "entry_points.txt").write_text(f"[synapse_kernel.plugins]\n{lines}\n")
    return {"PYTHONPATH": str(site)}


def test_the_list_tells_what_became_of_each(cli: Cli, with_broken_plugins: dict[str, str]) -> None:
    done = cli("plugins", "--json", env=with_broken_plugins)
    assert 0 == done.returncode
    found = {p["name"]: p for p in json.loads(done.stdout)}
    assert {
        "raises": "failed",
        "exits": "failed",
        "future": "incompatible",
        "typo": "failed",
    } == {name: found[name]["state"] for name in ("raises", "exits", "future", "typo")}
    assert ("acme", "1.2", "active") == (
        found["raises"]["distribution"],
        found["raises"]["version"],
        found["discovery"]["state"],
    )


def test_each_is_told_in_one_warning_and_the_rest_works(
    cli: Cli, with_broken_plugins: dict[str, str], greeter: Path
) -> None:
    done = cli("run", greeter, "greet", "-q", env=with_broken_plugins)
    assert 0 == done.returncode
    assert [
        "Warning: Plugin acme[exits] raised SystemExit(7) when it was imported. "
        "It is left out; see: synapse-kernel plugins show exits",
        "Warning: Plugin acme[future] needs hook interface 99, this kernel has 1: upgrade it with "
        "pip install -U synapse-kernel. It is left out; see: synapse-kernel plugins show future",
        "Warning: Plugin acme[raises] raised RuntimeError: out of coffee when it was imported. "
        "It is left out; see: synapse-kernel plugins show raises",
        "Warning: Plugin acme[typo] implements 'synapse_register_exekutors', which is no hook; "
        "did you mean 'synapse_register_executors'?. It is left out; "
        "see: synapse-kernel plugins show typo",
    ] == done.stderr.splitlines()


def test_show_prints_the_traceback(cli: Cli, with_broken_plugins: dict[str, str]) -> None:
    done = cli("plugins", "show", "raises", env=with_broken_plugins)
    assert "RuntimeError: out of coffee" in done.stdout
    assert "acme_raises.py" in done.stdout


def test_strict_plugins_exits_with_3(cli: Cli, with_broken_plugins: dict[str, str]) -> None:
    done = cli("--strict-plugins", "plugins", env=with_broken_plugins)
    assert (3, "Error: Plugin acme[exits] raised SystemExit(7) when it was imported\n") == (
        done.returncode,
        done.stderr,
    )


def test_a_blocked_plugin_is_not_imported(cli: Cli, with_broken_plugins: dict[str, str]) -> None:
    blocks = [part for name in ("raises", "exits", "future", "typo") for part in ("--without", name)]
    done = cli(*blocks, "plugins", "--json", env=with_broken_plugins)
    assert "" == done.stderr
    states = {p["name"]: (p["state"], p["import_ms"]) for p in json.loads(done.stdout)}
    assert ("blocked", None) == states["raises"]


def test_an_unknown_plugin_is_told_with_the_nearest(cli: Cli) -> None:
    done = cli("plugins", "show", "discovry")
    assert 2 == done.returncode
    assert (
        "Error: No plugin is named 'discovry'; did you mean 'discovery'?\n"
        "  installed: console, discovery, history, local_executors, pipelines, ray_executors, storage, "
        "storage_gcs, storage_http, storage_local, storage_s3, storage_sftp and 1 more\n"
    ) == done.stderr


def test_hooks_lists_every_hook_with_its_plugins(cli: Cli) -> None:
    hooks = json.loads(cli("plugins", "hooks", "--json").stdout)
    assert ["synapse-kernel[discovery]"] == hooks["synapse_discover"]
    assert [] == hooks["synapse_register_templates"]


def test_all_lists_contributions_with_their_state(cli: Cli) -> None:
    rows = [line.split() for line in cli("plugins", "list", "--all").stdout.splitlines()]
    assert ["executors", "process", "available"] in [row[:3] for row in rows]
