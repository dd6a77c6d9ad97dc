"""How the tests of the command line call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a function that runs `synapse-kernel` as a process of its own, in a folder of the test's."""

    def call(
        *args: str | Path, cwd: Path = tmp_path, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "synapse_kernel", *map(str, args)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONWARNINGS": "default", **(env or {})},
        )

    return call


@pytest.fixture
def greeter(make_folder: Callable[..., Path]) -> Path:
    """Return a plugin folder with actions of every temper."""
    return make_folder(
        {
            "config.yaml": """
                name: Greeter
                code: greeter
                version: 2.0
                category: custom
                actions:
                  greet:
                    entrypoint: plugin.main:GreetAction
                    description: Greet someone.
                    params: {times: 2}
                  shout: plugin.main:shout
                  fail: plugin.main:fail
                  bad_result: plugin.main:bad_result
                  remote: {entrypoint: "plugin.main:shout", method: job}
                  settings: plugin.main:settings
                  slow: plugin.main:slow
            """,
            "plugin/__init__.py": "",
            "plugin/main.py": """
                import os
                import time
                from typing import Literal

                from pydantic import BaseModel, Field, SecretStr

                from synapse_kernel import BaseAction, action


                class GreetParams(BaseModel):
                    name: str = Field("world", description="Whom to greet.")
                    times: int = Field(1, ge=1, le=5)
                    tone: Literal["plain", "warm"] = "plain"


                class GreetResult(BaseModel):
                    text: str
                    length: int


                class GreetAction(BaseAction[GreetParams, GreetResult]):
                    def execute(self):
                        print("printed by the action")
                        text = " ".join([f"Hello {self.params.name}"] * self.params.times)
                        self.set_progress(1, 1, "words")
                        self.set_metrics({"length": len(text)})
                        return {"text": text, "length": len(text)}


                @action
                def shout(params, ctx):
                    os.write(1, b"from a C call\\n")
                    return dict(params)


                @action
                def fail(params, ctx):
                    raise ValueError("the disk of dreams is full")


                @action(result=GreetResult)
                def bad_result(params, ctx):
                    return {"text": 3}


                class Inner(BaseModel):
                    lr: float = 0.1
                    steps: list[int] = []


                class Everything(BaseModel):
                    count: int = 0
                    ratio: float = 0.0
                    flag: bool = False
                    word: str = ""
                    sizes: list[int] = []
                    inner: Inner = Inner()
                    extra: dict[str, object] = {}
                    token: SecretStr | None = None


                @action
                def settings(params: Everything, ctx):
                    return {**params.model_dump(mode="json"), "env": ctx.env.to_dict()}


                @action
                def slow(params, ctx):
                    ctx.log_message("begun")
                    try:
                        for step in range(1200):
                            ctx.set_progress(step, 1200)
                            time.sleep(0.05)
                    finally:
                        ctx.log_message("cleaned up")
            """,
        },
        name="greeter",
    )
