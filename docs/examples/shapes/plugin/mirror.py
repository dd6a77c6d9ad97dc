"""Make a mirrored copy of a split."""

from pathlib import Path

from dataset import read_labels, write_labels, write_whole
from png import decoded, encoded
from pydantic import BaseModel

from synapse_kernel import BaseAction


class MirrorParams(BaseModel):
    split: Path


class MirrorResult(BaseModel):
    path: Path
    images: int


class MirrorAction(BaseAction[MirrorParams, MirrorResult]):
    """Exchange left and right in all images of a split, and in their boxes."""

    def execute(self) -> MirrorResult:
        source = self.params.split
        target = self.ctx.work_dir / f"{source.name}-mirrored"
        images = read_labels(source)
        for done, image in enumerate(images, start=1):
            data = (source / image.file).read_bytes()
            write_whole(target / image.file, encoded(decoded(data).mirrored()))
            for each in image.boxes:
                left, top, width, height = each.box
                each.box = (image.width - left - width, top, width, height)
            self.set_progress(done, len(images), source.name)
        write_labels(target, images)
        return MirrorResult(path=target, images=len(images))
