"""The action `count`, written as a class."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from synapse_kernel import BaseAction


class CountParams(BaseModel):
    """What to count."""

    path: Path = Field(description="A text file in UTF-8.")
    top: int = Field(10, ge=0, description="How many words to list, the most frequent first.")


class CountResult(BaseModel):
    """What was counted."""

    lines: int = Field(description="Lines in the file.")
    words: int = Field(description="Words, each as often as it occurs.")
    top: dict[str, int] = Field(description="The most frequent words, in lower case, with their number.")


class CountAction(BaseAction[CountParams, CountResult]):
    """Count the words of a text file."""

    def execute(self) -> CountResult:
        """Count line by line."""
        lines = self.params.path.read_text(encoding="utf-8").splitlines()
        self.log("read", {"file": self.params.path.name, "lines": len(lines)})
        counts: Counter[str] = Counter()
        for done, line in enumerate(lines, start=1):
            counts.update(re.findall(r"\w+", line.lower()))
            self.set_progress(done, len(lines), "lines")
        self.set_metrics({"words": counts.total(), "distinct": len(counts)})
        return CountResult(
            lines=len(lines), words=counts.total(), top=dict(counts.most_common(self.params.top))
        )
