"""The actions that the executor's contract runs: a folder as people write it."""

from __future__ import annotations

_CONFIG = """\
name: contract
actions:
  double: main:DoubleAction
  double_function: main:double_function
  double_later: main:DoubleLater
  give_back: main:give_back
  surroundings: main:surroundings
  talk: main:talk
  talk_much: main:talk_much
  talk_in_threads: main:talk_in_threads
  talk_in_steps: main:talk_in_steps
  print_lines: main:print_lines
  fail: failing:fail
  fail_strangely: failing:fail_strangely
  fail_unpicklably: failing:fail_unpicklably
  fail_unpickled: failing:fail_unpickled
  leave: failing:leave
  interrupt: failing:interrupt
  wrong: failing:wrong
  return_a_lock: failing:return_a_lock
  tell_secrets: failing:tell_secrets
  crash: failing:crash
  flaky: failing:flaky
  go_on: failing:go_on
  crash_once: failing:crash_once
  polite: stopping:polite
  polite_later: stopping:PoliteLater
  busy: stopping:busy
  deaf: stopping:deaf
"""

_MODELS = '''\
"""In a package beside the actions: it must be where they run, too."""

from pydantic import BaseModel


class Params(BaseModel):
    x: int = 1


class Doubled(BaseModel):
    value: int
'''

_MAIN = """\
import asyncio
import math
import os
import sys
import threading

from parts.models import Doubled, Params

from synapse_kernel import BaseAction, BaseStepContext, Orchestrator, StepRegistry, StepResult, action, step


class DoubleAction(BaseAction[Params, Doubled]):
    def execute(self):
        return {"value": 2 * self.params.x}


@action
def double_function(params: Params, ctx) -> Doubled:
    return Doubled(value=2 * params.x)


class DoubleLater(BaseAction[Params, Doubled]):
    async def execute(self):
        await asyncio.sleep(0)
        return Doubled(value=2 * self.params.x)


@action
def give_back(params, ctx):
    return params["it"]


@action
def surroundings(params, ctx):
    file = ctx.work_dir / "a.txt"
    file.write_text("a")
    ctx.log_artifact("a.txt")
    return {
        "run": ctx.run_id,
        "job": ctx.job_id,
        "attempt": ctx.attempt,
        "checkpoint": ctx.checkpoint,
        "env": dict(ctx.env),
        "variables": sorted(os.environ),
        "work_dir": str(ctx.work_dir),
        "read": file.read_text(),
    }


@action
def talk(params, ctx):
    ctx.log("one", {"n": 1})
    ctx.set_metrics({"loss": 0.5, "odd": math.nan}, "train")
    ctx.log_message("two \U0001f600", "success")
    ctx.logger.warning("three %d", 3)
    ctx.set_progress(5, 10, "epochs")


@action
def talk_much(params, ctx):
    for number in range(params["count"]):
        ctx.log("said", {"n": number})
        ctx.set_progress(number + 1, params["count"], "count")


@action
def talk_in_threads(params, ctx):
    def say(thread):
        for number in range(params["count"]):
            ctx.log_message(f"{thread} {number}")

    threads = [threading.Thread(target=say, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@step
def first(context: BaseStepContext) -> StepResult:
    context.log("inside", {})
    return StepResult()


@step
def second(context: BaseStepContext) -> StepResult:
    context.log("inside", {})
    return StepResult()


@action
def talk_in_steps(params, ctx):
    Orchestrator(StepRegistry([first, second]), BaseStepContext(ctx)).execute()


@action
def print_lines(params, ctx):
    for number in range(params["count"]):
        print(number)
    print("caf\u00e9 \U0001f600")
    print("to the other", file=sys.stderr)
    sys.stdout.write("no end")
"""

_FAILING = '''\
import ctypes
import os
import signal
import sys
import threading

from parts.models import Doubled

from synapse_kernel import action


def helper():
    raise LookupError("no such colour")


@action
def fail(params, ctx):
    ctx.log_message("said before")
    helper()


class Unprintable(Exception):
    """Neither its text can be read, nor can another be made from its arguments."""

    def __init__(self, needs, two):
        super().__init__(needs)

    def __str__(self):
        raise RuntimeError("not even this")


@action
def fail_strangely(params, ctx):
    raise Unprintable("a", "b")


class Unpicklable(Exception):
    """Holds what cannot be pickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.lock = threading.Lock()


@action
def fail_unpicklably(params, ctx):
    raise Unpicklable("salt", "pepper")


class Unpickled(Exception):
    """Can be pickled, but not read back."""

    def __init__(self, *, wanted):
        super().__init__(f"wanted {wanted}")


@action
def fail_unpickled(params, ctx):
    raise Unpickled(wanted="more")


@action
def leave(params, ctx):
    sys.exit(params["code"])


@action
def interrupt(params, ctx):
    raise KeyboardInterrupt


@action
def wrong(params, ctx) -> Doubled:
    return {"value": "many"}


@action
def return_a_lock(params, ctx):
    return {"fine": [1, {"deep": threading.Lock()}]}


@action
def tell_secrets(params, ctx):
    key, token = ctx.env["API_KEY"], params["token"]
    ctx.log_message(f"the key is {key}")
    ctx.log(token, {"it": [key, token]})
    print(f"printed {key}")
    raise ValueError(f"the server refused {key} and {token}")


@action
def crash(params, ctx):
    for number in range(100):
        ctx.log("step", {"n": number})
        ctx.set_metrics({"n": number})
    die(params["how"])


def die(how):
    if how == "exit":
        os._exit(7)
    if how == "exit-0":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@action
def flaky(params, ctx):
    ctx.log_message(f"attempt {ctx.attempt}")
    if ctx.attempt < params["until"]:
        raise OSError(f"no luck in attempt {ctx.attempt}")
    return ctx.attempt


@action
def go_on(params, ctx):
    done = ctx.checkpoint_store.get("done", 0)
    ctx.checkpoint_store.put("done", done + 1)
    if done == 0:
        raise OSError("not yet")
    return done


@action
def crash_once(params, ctx):
    ctx.log_message(f"attempt {ctx.attempt}")
    if ctx.attempt == 1:
        os._exit(3)
    return ctx.attempt
'''

_STOPPING = '''\
import asyncio
import time

import msgspec

from synapse_kernel import BaseAction, action
from synapse_kernel.owners import this_process


def tell_process(ctx):
    ctx.log("started", msgspec.to_builtins(this_process()))
    ctx.end_log()


@action
def polite(params, ctx):
    """Work until told to stop, then clean up, saying so."""
    tell_process(ctx)
    try:
        while True:
            ctx.set_progress(1)
            time.sleep(0.001)
    finally:
        ctx.log_message(f"cleaned up {ctx.attempt}")


class PoliteLater(BaseAction):
    async def execute(self):
        tell_process(self.ctx)
        try:
            await asyncio.sleep(3600)
        finally:
            self.ctx.log_message(f"cleaned up {self.ctx.attempt}")


@action
def busy(params, ctx):
    """Work without a word: nothing in it looks whether to stop."""
    tell_process(ctx)
    n = 0
    try:
        while True:
            n += 1
    finally:
        ctx.log_message("stopped")


@action
def deaf(params, ctx):
    """Sleep in a call into C, and go to sleep again whatever wakes it up."""
    tell_process(ctx)
    end = time.monotonic() + 900
    while time.monotonic() < end:
        try:
            time.sleep(900)
        except BaseException:
            pass
'''

FILES = {
    "config.yaml": _CONFIG,
    "main.py": _MAIN,
    "failing.py": _FAILING,
    "stopping.py": _STOPPING,
    "parts/__init__.py": "",
    "parts/models.py": _MODELS,
}
"""The folder: relative paths and texts."""
