"""
A split on disk: a folder with `images/*.png` and `labels.json`.

Boxes are [left, top, width, height] in pixels, the origin in the upper left corner.
"""

import json
from pathlib import Path

from pydantic import BaseModel

SHAPES = ("circle", "square", "triangle")
LABELS = "labels.json"


class Box(BaseModel):
    shape: str
    box: tuple[int, int, int, int]


class LabelledImage(BaseModel):
    file: str
    width: int
    height: int
    boxes: list[Box]


def read_labels(split: Path) -> list[LabelledImage]:
    """Return the images of a split with their boxes."""
    document = json.loads((split / LABELS).read_text(encoding="utf-8"))
    return [LabelledImage.model_validate(entry) for entry in document["images"]]


def write_labels(split: Path, images: list[LabelledImage]) -> None:
    """Write the labels of a split; they appear when the images are there."""
    document = {"images": [image.model_dump() for image in images]}
    write_whole(split / LABELS, json.dumps(document, indent=1).encode())


def write_whole(file: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also if the process is killed meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}")
    beside.write_bytes(data)
    beside.replace(file)
