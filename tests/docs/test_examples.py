"""What the documentation shows is so: its examples run, its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_the_examples_of_a_page_run_and_print_what_it_shows(page: Path, run_blocks: Callable[[Path], None]):
    run_blocks(page)


def test_the_links_of_a_page_lead_to_files_and_headings(
    page: Path, sections: Callable[[Path], dict[str, str]]
):
    outside_blocks = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)

    broken = []
    for link in LINK.findall(outside_blocks):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in map(anchor_of, sections(target))):
            broken.append(link)

    assert [] == broken


def test_every_page_can_be_reached_from_the_index(docs: Path):
    seen: set[Path] = set()
    waiting = [docs / "index.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix != ".md" or page in seen:
            continue
        seen.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links if ":" not in link]

    assert set() == set(docs.rglob("*.md")) - seen


def anchor_of(heading: str) -> str:
    """Return the anchor that a heading gets: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
