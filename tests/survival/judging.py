"""What must hold of a pipeline `survivor` that was killed and went on; see `mistakes`."""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import unquote

import victims

RESULT = {
    "report": {
        "drawn": [11, 21, 31, 41, 51, 61, 71, 81],
        "rest": [9, {"seen": ["lay", "raise", "roof"], "data": ["lay", "raise", "roof"]}, 10],
        "missing": "none",
    },
    "last": 1,
}
STEPS = ("lay", "raise", "roof")

Life = dict[str, Any]


def mistakes(order: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return everything that is not as it must be, nothing if all is well."""
    lives, ledger = told["lives"], told["ledger"]
    found: list[str] = []
    for number in range(1, len(lives) + 1):
        each = _recorded(lives, number) + _crashed(lives, number) + _attempts(lives, number)
        if order["pipeline"] == "survivor":
            each += _done_again(lives[number - 1], number, ledger)
        found += [f"life {number}, which ended {death(lives[number - 1])}: {text}" for text in each]
    if order["pipeline"] == "rolled_back":
        return [*found, *_undone(lives, ledger), *_failed(lives[-1]["found"])]
    return [*found, *_counted(len(lives), ledger), *_ordered(ledger), *_ended(lives[-1]["found"])]


def death(life: Life) -> str:
    """Return where a life ended."""
    return next((said["died"] for said in life["said"] if "died" in said), "not by itself")


def _recorded(lives: list[Life], number: int) -> list[str]:
    """Return what was acknowledged in the lives up to this one and is not there after it."""
    after = lives[number - 1]["found"]
    runs = after["runs"]
    told = [] if after["integrity"] == ["ok"] else [f"the database is not whole: {after['integrity']}"]
    events = {tuple(event) for event in after["events"]}
    for said in (said for life in lives[:number] for said in life["said"]):
        if (run := said.get("run")) is not None and run not in runs:
            told.append(f"run {run} is lost")
        told += [f"event {event} is lost" for event in said.get("events", ()) if tuple(event) not in events]
        ended = said.get("ended")
        if ended is not None and said["status"] == "succeeded" and runs[ended]["status"] != "succeeded":
            told.append(f"the end of {ended} is lost")
        scope = said.get("scope")
        if scope == "cache":
            told += [f"{key} is not in the cache" for key in said["keys"] if key not in after["cached"]]
        elif scope is not None and runs[scope]["status"] != "succeeded" and runs[scope]["node"] == "build":
            told += [f"checkpoint {key} is lost" for key in said["keys"] if key not in after["kept"][scope]]
    for run, numbers in _numbers(after["events"]).items():
        if numbers != list(range(1, len(numbers) + 1)) and len(set(numbers)) < len(numbers):
            told.append(f"the events of {run} are numbered {numbers}")
        if numbers != sorted(numbers):
            told.append(f"the events of {run} are not in order: {numbers}")
        if runs[run]["last_seq"] != numbers[-1]:
            told.append(f"the last event of {run} is {numbers[-1]}, not {runs[run]['last_seq']}")
    return told


def _numbers(events: list[tuple[str, int]]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for run, seq in events:
        numbers.setdefault(run, []).append(seq)
    return numbers


def _crashed(lives: list[Life], number: int) -> list[str]:
    """Return which runs do not read as they must once this life is over."""
    after = lives[number - 1]["found"]
    told = [] if after["bystander"] == "pending" else [f"a live run reads {after['bystander']}"]
    if after["roots"] > 1:
        told.append(f"there are {after['roots']} pipelines")
    over = {run for run, is_ in after["runs"].items() if is_["status"] in {"succeeded", "failed"}}
    crashed = {run for run, is_ in after["runs"].items() if is_["status"] == "crashed"}
    told += [f"{run} reads {after['runs'][run]['status']}" for run in after["runs"].keys() - over - crashed]
    before = lives[number - 2]["found"]["runs"] if number > 1 else {}
    died = {run for run in crashed if before.get(run) != after["runs"][run]}
    if died != set(after["reaped"]):
        told.append(f"{sorted(died)} died, and {after['reaped']} were told to be dead")
    if after["root"] in over and crashed:
        told.append(f"the pipeline is over, and {sorted(crashed)} read crashed")
    return told


def _attempts(lives: list[Life], number: int) -> list[str]:
    """Return which runs were not gone on with as they must be."""
    told = []
    end = lives[-1]["found"]
    nodes = Counter(is_["node"] for is_ in end["runs"].values())
    told += [f"node {node} has {count} runs" for node, count in nodes.items() if count > 1]
    after = lives[number - 1]["found"]
    if after is end:
        return told
    for run, is_ in after["runs"].items():
        at_last = end["runs"].get(run, {"attempt": 0})["attempt"]
        if is_["status"] == "succeeded" and at_last != is_["attempt"]:
            told.append(f"{is_['node']} succeeded in attempt {is_['attempt']} and is at {at_last}")
        if is_["status"] != "succeeded" and at_last <= is_["attempt"]:
            told.append(f"{is_['node']} broke off in attempt {is_['attempt']} and is still at {at_last}")
    return told


def _done_again(life: Life, number: int, ledger: list[dict[str, Any]]) -> list[str]:
    """Return the effects that are there once more although they were recorded by the end of this life."""
    after = life["found"]
    over = {is_["node"] for is_ in after["runs"].values() if is_["status"] == "succeeded"}
    told = [
        f"node {line['node']} was done, and again in life {line['life']}"
        for line in ledger
        if line["node"] in over and _life(line) > number
    ]
    steps = {
        (run, unquote(key.rpartition("/")[2]))
        for run, keys in after["kept"].items()
        for key in keys
        if "/done/" in key
    }
    told += [
        f"step {line['step']} of {line['node']} was done, and again in life {line['life']}"
        for line in ledger
        if (line["run"], line["step"]) in steps and _life(line) > number
    ]
    effects = Counter(
        (line["node"], line["step"]) for line in ledger if _life(line) == number and line["step"] != "try"
    )
    return [*told, *(f"{effect} was done {n} times" for effect, n in effects.items() if n > 1)]


def _life(line: dict[str, Any]) -> int:
    """Return in which life something was done; a worker does not know, but each life makes one attempt."""
    return int(line["life"] or line["attempt"])


def _counted(lives: int, ledger: list[dict[str, Any]]) -> list[str]:
    done = Counter((line["node"], line["step"]) for line in ledger)
    nodes = {(node, "") for node in victims.NEEDS} - {("draw", ""), ("build", "")}
    drawn = {(f"draw[{index}]", "") for index in range(8)}
    expected = nodes | drawn | {("build", step) for step in STEPS} | {("flaky", "try")}
    told = [f"{node} {step} was never done" for node, step in sorted(expected - done.keys())]
    told += [f"{node} {step} should not be done" for node, step in sorted(done.keys() - expected)]
    most = {effect: lives + (effect[1] == "try") for effect in done}
    return told + [f"{effect} was done {n} times" for effect, n in done.items() if n > most[effect]]


def _ordered(ledger: list[dict[str, Any]]) -> list[str]:
    """Return the nodes that began before all that they need had ended for good."""
    at: dict[str, list[int]] = {}
    for place, line in enumerate(ledger):
        at.setdefault(line["node"].partition("[")[0], []).append(place)
    return [
        f"{node} was done before {need}"
        for node, needs in victims.NEEDS.items()
        for need in needs
        if max(at.get(need, [-1])) > min(at.get(node, [len(ledger)]))
    ]


def _ended(end: dict[str, Any]) -> list[str]:
    outcome = end["outcomes"].get(end["root"]) or {}
    told = [] if outcome.get("result") == RESULT else [f"the end is {outcome}"]
    for is_ in end["runs"].values():
        expected = "failed" if is_["node"] == "broken" else "succeeded"
        if is_["status"] != expected:
            told.append(f"{is_['node']} is {is_['status']} at last")
    return told


def _failed(end: dict[str, Any]) -> list[str]:
    status = {is_["node"]: is_["status"] for is_ in end["runs"].values()}
    expected = {None: "failed", "first": "succeeded", "collapse": "failed"}
    return [] if status == expected else [f"at last the nodes are {status}"]


def _undone(lives: list[Life], ledger: list[dict[str, Any]]) -> list[str]:
    """
    Return what was not undone as it must be: all that was done, the last first, and once.

    Only what a life did last, and had no time to record, may be done once more as the next one begins.
    """
    told: list[str] = []
    standing: list[str] = []
    before: dict[str, Any] | None = None
    for line in (line for line in ledger if line["node"] == "collapse"):
        step = line["step"]
        again = before is not None and line["life"] > before["life"] and step == before["step"]
        if again and not _is_recorded(lives[before["life"] - 1], before):  # type: ignore[index]
            pass
        elif step.startswith("undo "):
            if not standing or standing.pop() != step.removeprefix("undo "):
                told.append(f"life {line['life']}: {step} out of order")
        elif step in standing:
            told.append(f"life {line['life']}: {step} was done, and is again")
        else:
            standing.append(step)
        before = line
    return [*told, *(f"{step} was never undone" for step in standing)]


def _is_recorded(life: Life, line: dict[str, Any]) -> bool:
    """Tell whether a life recorded the last thing that it did."""
    step = line["step"]
    key = f"/undone/{step.removeprefix('undo ')}" if step.startswith("undo ") else f"/done/{step}"
    kept = life["found"]["kept"].get(line["run"], [])
    # Once the last is undone, all is forgotten in one write.
    forgotten = step == "undo lay" and not kept
    return forgotten or any(each.endswith(key) for each in kept)
