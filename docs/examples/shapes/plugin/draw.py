"""Draw labelled images."""

import random
import time
from pathlib import Path

from dataset import SHAPES, Box, LabelledImage, write_labels, write_whole
from png import Image, encoded
from pydantic import BaseModel, Field

from synapse_kernel import BaseAction


class DrawParams(BaseModel):
    name: str = Field(description="The split's name.")
    images: int = Field(ge=1, description="How many images to draw.")
    size: int = Field(64, ge=16, le=512, description="Width and height in pixels.")
    seed: int = Field(0, description="The same seed draws the same images.")
    delay: float = Field(0, ge=0, description="Seconds to wait after each image.")


class DrawResult(BaseModel):
    name: str
    path: Path = Field(description="The split's folder.")
    images: int


class DrawAction(BaseAction[DrawParams, DrawResult]):
    """
    Draw the images of one split, with their labels.

    It may be killed and done again: an image depends on nothing but the params and its number, and each
    file is there whole or not at all.
    """

    def execute(self) -> DrawResult:
        params, split = self.params, self.ctx.work_dir / self.params.name
        labelled = []
        for number in range(params.images):
            chance = random.Random(f"{params.seed} {params.name} {number}")  # noqa: S311 - no secret
            image, boxes = drawn(params.size, chance)
            file = f"images/{number:04}.png"
            data = encoded(image)
            write_whole(split / file, data)
            labelled.append(LabelledImage(file=file, width=params.size, height=params.size, boxes=boxes))
            covered = sum(box.box[2] * box.box[3] for box in boxes) / params.size**2
            self.set_metrics({"shapes": len(boxes), "covered": covered, "bytes": len(data)}, params.name)
            self.set_progress(number + 1, params.images, params.name)
            time.sleep(params.delay)
        write_labels(split, labelled)
        return DrawResult(name=params.name, path=split, images=len(labelled))


def drawn(size: int, chance: random.Random) -> tuple[Image, list[Box]]:
    """Return an image of one to three shapes, and where they are."""
    image = Image.filled(size, size, colour(chance, 200, 255))
    boxes = []
    for _ in range(chance.randint(1, 3)):
        shape, radius = chance.choice(SHAPES), chance.randint(size // 10, size // 4)
        left, top = (chance.randrange(size - 2 * radius) for _ in range(2))
        paint(image, shape, left, top, radius, bytes(colour(chance, 0, 160)))
        boxes.append(Box(shape=shape, box=(left, top, 2 * radius + 1, 2 * radius + 1)))
    return image, boxes


def paint(image: Image, shape: str, left: int, top: int, radius: int, pixel: bytes) -> None:
    """Paint a shape row by row; each row of it is one stretch of pixels around its middle."""
    for down in range(2 * radius + 1):
        reach = reach_of(shape, down, radius)
        first = 3 * (left + radius - reach)
        image.rows[top + down][first : first + 3 * (2 * reach + 1)] = pixel * (2 * reach + 1)


def reach_of(shape: str, down: int, radius: int) -> int:
    """Return how far a shape reaches to either side, so many rows below its top."""
    if shape == "circle":
        return int((radius**2 - (down - radius) ** 2) ** 0.5)
    return radius if shape == "square" else down // 2


def colour(chance: random.Random, low: int, high: int) -> tuple[int, int, int]:
    """Return a colour whose parts are in a range."""
    return chance.randint(low, high), chance.randint(low, high), chance.randint(low, high)
