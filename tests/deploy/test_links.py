"""Every link in a page of this repository leads somewhere: to a file, and to a heading in it."""

import re
import unicodedata
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import ROOT

PAGES = [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.md"))]
PAGES = [page for page in PAGES if page.parts[0] not in ("target", ".git") and "node_modules" not in page.parts]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]: (\S+)", re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    names, counts = set(), {}
    for heading in re.findall(r"^#{1,6} (.+?) *#*$", FENCE.sub("", (ROOT / page).read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN")
        name = "".join(kept).replace(" ", "-")
        counts[name] = counts.get(name, -1) + 1
        names.add(f"{name}-{counts[name]}" if counts[name] else name)
    return names


def fault(page: Path, link: str) -> str | None:
    """What is wrong with a link of a page, if anything."""
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = unquote(link).partition("#")
    target = (ROOT / page.parent / path).resolve() if path else ROOT / page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: there is no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.relative_to(ROOT)):
        return f"{link}: there is no such heading; there are {sorted(anchors(target.relative_to(ROOT)))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_resolve(page):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", (ROOT / page).read_text()))
    links = [next(filter(None, found)) for found in LINK.findall(text)]
    assert not (faults := [why for link in links if (why := fault(page, link))]), "\n".join(faults)


def test_it_finds_what_is_broken():
    assert fault(Path("README.md"), "docs/no-such-page.md")
    assert fault(Path("README.md"), "ARCHITECTURE.md#no-such-heading")
    assert fault(Path("README.md"), "../outside.md")
    assert fault(Path("README.md"), "ARCHITECTURE.md#invariants") is None
