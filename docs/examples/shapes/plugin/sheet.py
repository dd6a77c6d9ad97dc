"""Put all images on one HTML page."""

from base64 import b64encode
from html import escape
from pathlib import Path

from dataset import LabelledImage, read_labels, write_whole
from pydantic import BaseModel

from synapse_kernel import BaseAction

STYLE = """
body { font: 15px sans-serif; margin: 2em }
figure { display: inline-block; margin: 4px }
svg { width: 128px; height: 128px }
rect { fill: none; stroke: crimson }
image { image-rendering: pixelated }
"""


class SheetParams(BaseModel):
    splits: list[Path]
    mirrored: list[Path] = []


class SheetResult(BaseModel):
    path: Path


class SheetAction(BaseAction[SheetParams, SheetResult]):
    """Put all images on one HTML page that needs no other file, their boxes drawn over them."""

    def execute(self) -> SheetResult:
        splits = [*self.params.splits, *self.params.mirrored]
        parts = [f"<!doctype html><meta charset=utf-8><title>Shapes</title><style>{STYLE}</style>"]
        for done, split in enumerate(splits, start=1):
            parts.append(f"<h2>{escape(split.name)}</h2>")
            parts += [figure(split, image) for image in read_labels(split)]
            self.set_progress(done, len(splits), "splits")
        page = self.ctx.work_dir / "sheet.html"
        write_whole(page, "\n".join(parts).encode())
        self.ctx.log_artifact(page)
        return SheetResult(path=page)


def figure(split: Path, image: LabelledImage) -> str:
    """Return one image with its boxes."""
    data = b64encode((split / image.file).read_bytes()).decode()
    boxes = "".join(
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}">'
        f"<title>{escape(each.shape)}</title></rect>"
        for each in image.boxes
        for left, top, width, height in [each.box]
    )
    return (
        f'<figure><svg viewBox="0 0 {image.width} {image.height}">'
        f'<image width="{image.width}" height="{image.height}" href="data:image/png;base64,{data}"/>'
        f"{boxes}</svg></figure>"
    )
