"""An action that reads a COCO annotation file and reports its classes."""

import json
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from synapse_kernel import BaseAction


class ReportParams(BaseModel):
    path: Path = Field(description="A COCO annotation file (JSON).")
    top: int = Field(20, ge=1, description="How many classes to list, the most frequent first.")
    min_area: float = Field(0, ge=0, description="Pass over annotations below this area, in pixels.")


class ClassCount(BaseModel):
    name: str = Field(description="The class's name.")
    annotations: int = Field(description="Annotations of this class.")
    images: int = Field(description="Images with at least one of them.")


class ReportResult(BaseModel):
    images: int = Field(description="Images in the file.")
    annotations: int = Field(description="Annotations that were counted.")
    crowds: int = Field(description="Those among them that mark a crowd.")
    unused: list[str] = Field(description="Classes without a single annotation.")
    classes: list[ClassCount] = Field(description="The most frequent classes.")


class ReportAction(BaseAction[ReportParams, ReportResult]):
    """Report the classes of a COCO annotation file."""

    action_name = "report"

    def execute(self) -> ReportResult:
        data = json.loads(self.params.path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in data["categories"]}
        annotations = data.get("annotations", [])
        self.log("read", {"file": self.params.path.name, "annotations": len(annotations)})

        per_class: Counter[int] = Counter()
        images_of: dict[int, set[int]] = {}
        crowds = 0
        for done, annotation in enumerate(annotations, start=1):
            if annotation.get("area", 0) >= self.params.min_area:
                category = annotation["category_id"]
                per_class[category] += 1
                images_of.setdefault(category, set()).add(annotation["image_id"])
                crowds += annotation.get("iscrowd", 0)
            self.set_progress(done, len(annotations), "annotations")

        counted = per_class.total()
        self.set_metrics({"annotations": counted, "classes": len(per_class), "crowds": crowds})
        result = ReportResult(
            images=len(data["images"]),
            annotations=counted,
            crowds=crowds,
            unused=sorted(name for id_, name in names.items() if not per_class[id_]),
            classes=[
                ClassCount(name=names[id_], annotations=count, images=len(images_of[id_]))
                for id_, count in per_class.most_common(self.params.top)
            ],
        )
        report = self.ctx.work_dir / "report.json"
        report.write_text(result.model_dump_json(indent=2), encoding="utf-8")
        self.ctx.log_artifact(report)
        self.ctx.log_message(f"{counted} annotations of {len(per_class)} classes", "success")
        return result
