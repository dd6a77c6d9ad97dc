"""Measure the boxes of one shape."""

from pathlib import Path
from statistics import fmean

from dataset import read_labels
from pydantic import BaseModel, Field

from synapse_kernel import BaseAction


class MeasureParams(BaseModel):
    splits: list[Path]
    shape: str


class MeasureResult(BaseModel):
    shape: str
    boxes: int
    mean_side: float = Field(description="Pixels.")
    smallest: int
    largest: int


class MeasureAction(BaseAction[MeasureParams, MeasureResult]):
    """Measure the boxes of one shape, image by image."""

    def execute(self) -> MeasureResult:
        shape = self.params.shape
        images = [image for split in self.params.splits for image in read_labels(split)]
        sides: list[int] = []
        for done, image in enumerate(images, start=1):
            sides += [each.box[2] for each in image.boxes if each.shape == shape]
            if sides:
                self.set_metrics({"boxes": len(sides), "mean_side": fmean(sides)}, shape)
            self.set_progress(done, len(images), shape)
        return MeasureResult(
            shape=shape, boxes=len(sides), mean_side=fmean(sides), smallest=min(sides), largest=max(sides)
        )
