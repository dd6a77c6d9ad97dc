"""Gather what was found in a report."""

from pathlib import Path

from dataset import write_whole
from measure import MeasureResult
from pydantic import BaseModel, Field

from synapse_kernel import BaseAction


class ReportParams(BaseModel):
    title: str
    folder: Path = Field(description="Where the report is written.")
    images: int
    measured: list[MeasureResult]
    sheet: Path | None = Field(None, description="A page with all images.")


class ReportResult(BaseModel):
    path: Path


class ReportAction(BaseAction[ReportParams, ReportResult]):
    """Write the report, in Markdown."""

    def execute(self) -> ReportResult:
        params = self.params
        lines = [f"# {params.title}", "", f"{params.images} images.", ""]
        lines += ["| shape | boxes | mean side | smallest | largest |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {each.shape} | {each.boxes} | {each.mean_side:.1f} | {each.smallest} | {each.largest} |"
            for each in params.measured
        ]
        if params.sheet is not None:
            write_whole(params.folder / params.sheet.name, params.sheet.read_bytes())
            lines += ["", f"All of them: [{params.sheet.name}]({params.sheet.name})"]
        report = params.folder / "report.md"
        write_whole(report, ("\n".join(lines) + "\n").encode())
        self.ctx.log_artifact(report)
        self.ctx.log_message(f"The report is in {report}", "success")
        return ReportResult(path=report)
