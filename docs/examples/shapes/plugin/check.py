"""Check that splits hold what they should: a workflow of steps."""

from dataclasses import dataclass, field
from pathlib import Path

from dataset import LABELS, SHAPES, read_labels
from pydantic import BaseModel, Field

from synapse_kernel import BaseAction, BaseStepContext, Orchestrator, StepRegistry, StepResult, step


class CheckParams(BaseModel):
    splits: list[Path] = Field(description="The folders of the splits.")
    expected: list[int] = Field(description="How many images each must have.")


class CheckResult(BaseModel):
    splits: list[Path]
    images: int
    boxes: int
    shapes: list[str] = Field(description="The shapes that are there.")


@dataclass
class Checked(BaseStepContext):
    splits: list[str] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)
    images: int = 0
    boxes: int = 0
    shapes: list[str] = field(default_factory=list)


@step
def files(context: Checked) -> StepResult:
    """Look whether every image that is labelled is there."""
    missing = [
        str(Path(split, image.file))
        for split in context.splits
        for image in read_labels(Path(split))
        if not Path(split, image.file).is_file()
    ]
    return StepResult(success=not missing, error=f"missing: {', '.join(missing)}", data={"missing": missing})


@step
def counts(context: Checked) -> StepResult:
    """Look whether there are as many images as there should be."""
    found = [len(read_labels(Path(split))) for split in context.splits]
    context.images = sum(found)
    return StepResult(
        success=found == context.expected,
        error=f"expected {context.expected} images, found {found}",
        data={"found": found},
    )


@step(weight=2)
def boxes(context: Checked) -> StepResult:
    """Look whether each box lies inside its image, and has a shape that is known."""
    shapes = set()
    for split in context.splits:
        for image in read_labels(Path(split)):
            for each in image.boxes:
                left, top, width, height = each.box
                inside = (
                    left >= 0 and top >= 0 and left + width <= image.width and top + height <= image.height
                )
                if not inside or each.shape not in SHAPES:
                    return StepResult(success=False, error=f"{split}/{LABELS}: {image.file}: {each}")
                shapes.add(each.shape)
                context.boxes += 1
    context.shapes = sorted(shapes)
    return StepResult()


class CheckAction(BaseAction[CheckParams, CheckResult]):
    """Check that splits hold what they should."""

    def execute(self) -> CheckResult:
        context = Checked(
            self.ctx, splits=[str(split) for split in self.params.splits], expected=self.params.expected
        )
        Orchestrator(StepRegistry([files, counts, boxes]), context, self.set_progress).execute()
        self.set_metrics({"images": context.images, "boxes": context.boxes})
        return CheckResult(
            splits=self.params.splits, images=context.images, boxes=context.boxes, shapes=context.shapes
        )
