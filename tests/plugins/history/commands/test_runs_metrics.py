"""`runs metrics`: a table, a plot, a file."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

A, B = "aaaa0000aaaa0000", "bbbb0000bbbb0000"
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def measured(book, events: type) -> None:
    """Record a run with metrics of its own and of a part of it."""
    said = events(A)
    for epoch in range(5):
        said.metrics({"loss": 1 / (epoch + 1), "acc": epoch / 5}, "train")
        said.metrics({"loss": 2 / (epoch + 1)}, "val", step="fit")
    said.metrics({"odd": NAN}).metrics({"odd": 3}).metrics({"odd": INF}).metrics({"never": NAN})
    book.run(A, events=said.made)
    part = events(B)
    part.time = said.time
    book.child(B, A, "export", events=part.metrics({"size": 12.5}).made)


def test_a_table_has_the_last_the_least_and_the_greatest(runs: Callable, measured: None) -> None:
    said = runs("metrics", A)
    assert (0, "") == (said.code, said.err)
    assert [
        "metric        last  min   max   count",
        "train/loss    0.2   0.2   1     5",
        "train/acc     0.8   0     0.8   5",
        "fit/val/loss  0.4   0.4   2     5",
        "odd           inf   3     inf   3",
        "never         nan   nan   nan   1",
        "export/size   12.5  12.5  12.5  1",
    ] == said.out.splitlines()


def test_metrics_are_chosen_by_name_origin_pattern_and_category(runs: Callable, measured: None) -> None:
    def labels(*args: str) -> list[str]:
        return [line.split()[0] for line in runs("metrics", A, *args).out.splitlines()[1:]]

    assert ["train/loss", "fit/val/loss"] == labels("loss")
    assert ["fit/val/loss", "export/size"] == labels("fit/val/loss", "size")
    assert ["train/loss", "train/acc"] == labels("train/*")
    assert ["fit/val/loss"] == labels("--category", "val")


def test_brackets_in_a_pattern_are_those_of_a_node(runs: Callable, book, events: type) -> None:
    book.run(A, kind="pipeline")
    for index, run_id in enumerate((B, "cccc0000cccc0000")):
        said = events(run_id).metrics({"loss": index}, "val").metrics({"loss": index}, "train")
        book.child(run_id, A, f"train[{index}]", events=said.made)

    def labels(*args: str) -> list[str]:
        return [line.split()[0] for line in runs("metrics", A, *args).out.splitlines()[1:]]

    assert ["train[0]/val/loss"] == labels("train[0]/val/*")
    assert ["train[0]/val/loss", "train[1]/val/loss"] == labels("train[?]/v*")
    assert 2 == runs("metrics", A, "train[01]/val/*").code


def test_unknown_names_are_told_with_what_there_is(runs: Callable, measured: None) -> None:
    said = runs("metrics", A, "los", "loss")
    assert (2, "") == (said.code, said.out)
    assert (
        f"Error: Run {A} has no metric 'los'; did you mean 'loss'?\n"
        "  metrics there: export/size, fit/val/loss, never, odd, train/acc, train/loss\n"
    ) == said.err
    assert (
        f"Error: Run {A} has no metrics of the category 'vall'; did you mean 'val'?\n"
        "  categories there: train, val\n"
    ) == runs("metrics", A, "--category", "vall").err


def test_a_run_without_metrics_says_so(runs: Callable, book) -> None:
    book.run(A)
    said = runs("metrics", A)
    assert (0, "", f"Run {A} has no metrics.\n") == said


def test_a_document_has_every_value_and_text_for_what_json_cannot_hold(
    runs: Callable, measured: None
) -> None:
    found = {m["label"]: m for m in runs("metrics", A, "--json").document["metrics"]}
    assert [2.0, 1.0, 2 / 3, 0.5, 0.4] == found["fit/val/loss"]["values"]
    assert ("fit", "val", "loss", 5) == tuple(
        found["fit/val/loss"][key] for key in ("step", "category", "name", "count")
    )
    assert ["NaN", 3.0, "Infinity"] == found["odd"]["values"]
    assert (3, "Infinity", "Infinity") == tuple(found["odd"][key] for key in ("min", "max", "last"))
    assert ("NaN", "NaN") == (found["never"]["min"], found["never"]["last"])
    assert ("export", B) == (found["export/size"]["node"], found["export/size"]["run_id"])


def test_a_plot_fits_its_width_and_has_no_colours_in_a_pipe(
    runs: Callable, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    said = runs("metrics", A, "loss", "--plot")
    assert 0 == said.code
    lines = said.out.splitlines()
    assert "loss:  • train   x fit/val" == lines[0]
    assert 60 == max(map(len, lines))
    assert "\x1b" not in said.out
    assert any("•" in line and "┤" in line for line in lines)
    assert "step" == lines[-2].strip()
    assert ["1", "2", "3", "4", "5"] == lines[-3].split()


def test_one_series_is_drawn_fine_and_a_lone_value_as_a_point(runs: Callable, measured: None) -> None:
    said = runs("metrics", A, "acc", "--plot", "--over", "time")
    assert "train/acc" == said.out.splitlines()[0]
    assert any("⠀" < character <= "⣿" for character in said.out)
    assert "seconds" == said.out.splitlines()[-2].strip()
    assert "•" in runs("metrics", A, "size", "--plot").out


def test_what_is_no_number_is_left_out_of_a_plot(runs: Callable, measured: None) -> None:
    said = runs("metrics", A, "odd", "never", "--plot")
    assert 0 == said.code
    assert "odd" == said.out.splitlines()[0]
    assert "never: none of its values is a finite number\n" == said.err


def test_of_many_metrics_the_first_are_drawn_and_the_others_named(runs: Callable, book, events: type) -> None:
    book.run(A, events=events(A).metrics({f"m{n}": n for n in range(8)}).made)
    said = runs("metrics", A, "--plot")
    assert "Not drawn; name them to see them: m6, m7\n" == said.err
    assert "m5" in said.out.splitlines()


def test_a_very_long_series_is_drawn_with_its_peaks(runs: Callable, book, events: type) -> None:
    said = events(A)
    for number in range(20_000):
        said.metrics({"loss": 7.0 if number == 12_345 else 1.0})
    book.run(A, events=said.made)
    assert runs("metrics", A, "--plot").out.splitlines()[2].lstrip().startswith("7┤")


def test_on_a_terminal_a_plot_has_colours(spawn: Callable, measured: None) -> None:
    child = spawn("runs", "metrics", A, "loss", "--plot")
    child.expect("loss:  \x1b\\[34m● train\x1b\\[0m   \x1b\\[31m● fit/val")
    child.expect("step")
    child.close()


def test_a_picture_is_written(runs: Callable, measured: None, tmp_path: Path) -> None:
    for ending, magic in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        said = runs("metrics", A, "--output", f"plot.{ending}")
        assert (0, "", f"plot.{ending}: written\n") == said
        assert (tmp_path / f"plot.{ending}").read_bytes().startswith(magic)
    assert ["plot.pdf", "plot.png", "plot.svg"] == sorted(file.name for file in tmp_path.glob("*plot*"))


def test_numbers_are_written(runs: Callable, measured: None, tmp_path: Path) -> None:
    runs("metrics", A, "loss", "--output", "loss.csv")
    rows = list(csv.DictReader((tmp_path / "loss.csv").read_text().splitlines()))
    assert 10 == len(rows)
    assert ("fit/val/loss", "fit", "val", "2", "1.0") == tuple(
        rows[6][key] for key in ("label", "step", "category", "number", "value")
    )
    runs("metrics", A, "--output", "all.json")
    assert 6 == len(json.loads((tmp_path / "all.json").read_text())["metrics"])


def test_a_file_that_cannot_be_written_is_told(runs: Callable, measured: None) -> None:
    for name in ("none/x.png", "none/x.csv"):
        said = runs("metrics", A, "--output", name)
        assert (2, f"Error: --output {name} cannot be written: No such file or directory\n") == (
            said.code,
            said.err,
        )
    assert (
        "Error: --output x.txt: what to write is told by the ending, "
        "which is one of .png, .svg, .pdf, .csv, .json\n"
    ) == runs("metrics", A, "--output", "x.txt").err


def test_without_matplotlib_a_picture_says_how_to_get_it(measured: None, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('No module named matplotlib')\n")
    done = subprocess.run(
        [sys.executable, "-m", "synapse_kernel", "runs", "metrics", A, "--output", "x.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (3, "") == (done.returncode, done.stdout)
    assert (
        "Error: Plot 'x.png' needs the package 'matplotlib', which is not installed. "
        "Install it with: pip install 'synapse-kernel[plot]'\n"
        "  or draw it in the terminal with: --plot\n"
    ) == done.stderr
