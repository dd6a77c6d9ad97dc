"""What the tests of pipelines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synapse_kernel import Kernel
from synapse_plugins.pipelines import PipelineError
from synapse_plugins.pipelines.documents import load_pipeline

ACTIONS = """
    from pathlib import Path
    from typing import Literal

    from pydantic import BaseModel, Field

    from synapse_kernel import action


    class Split(BaseModel):
        name: str
        images: int = 0


    class ConvertParams(BaseModel):
        path: Path
        target_format: Literal["yolo", "coco"] = "yolo"


    class Converted(BaseModel):
        path: Path
        images: int
        names: list[str]
        splits: list[Split] = []
        note: str | None = None
        main: Split | None = None


    class Optimiser(BaseModel):
        name: str = "sgd"
        rate: float = 0.1


    class TrainParams(BaseModel):
        data: Path
        epochs: int = Field(3, ge=1)
        tags: list[str] = []
        optimiser: Optimiser = Optimiser()


    class Trained(BaseModel):
        weights: Path
        accuracy: float


    @action(output_type="yolo_dataset")
    def convert(params: ConvertParams, ctx) -> Converted: ...


    @action(output_type="coco_dataset")
    def to_coco(params: ConvertParams, ctx) -> Converted: ...


    @action(input_type="yolo_dataset", output_type="model_weights")
    def train(params: TrainParams, ctx) -> Trained: ...


    @action
    def anything(params, ctx): ...
"""


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    """Return a folder with a Python file of actions, where a `pipeline.yaml` may be written."""
    return make_folder({"shapes.py": ACTIONS}, "project")


@pytest.fixture
def told(folder: Path, kernel: Kernel) -> Callable[[str], list[str]]:
    """Return a function that reads a `pipeline.yaml` beside the actions and tells what is wrong."""
    import textwrap

    def problems(text: str) -> list[str]:
        file = folder / "pipeline.yaml"
        file.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        try:
            load_pipeline(file, kernel)
        except PipelineError as error:
            return str(error).replace(f"{folder}/", "").splitlines()
        return []

    return problems
