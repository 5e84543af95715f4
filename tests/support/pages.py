"""Pages of the documentation as tests read them: their blocks, links, headings and commands."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages whose blocks a reader copies; of the others links alone are kept.
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
    *sorted((ROOT / "rvq_jax").rglob("*.md")),
    *sorted((ROOT / "tests").rglob("*.md")),
]
LANGUAGES = {"python", "sh", "text", "csv", "json"}
FENCE = re.compile(r"^( *)(```+|~~~+)(\S*)[^\n]*\n(.*?)^\1\2 *$", re.M | re.S)
LINK = re.compile(r"\]\((?:<([^>]+)>|([^)\s]+))\)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of the page, where its fence opens


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(text):
        inside = "\n".join(line.removeprefix(match[1]) for line in match[4].splitlines())
        found.append(Block(match[3], inside, text.count("\n", 0, match.start()) + 1))
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block of shell, continued lines joined, each as its words."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def links(text: str) -> list[str]:
    """Where a page's links point to, fenced blocks and code left out."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [a or b for a, b in LINK.findall(prose)]


def anchors(text: str) -> set[str]:
    """What a page's headings, and marks of its own, are called in links."""
    found: set[str] = set()
    for line in FENCE.sub("", text).splitlines():
        if match := re.match(r"#+ +(.*)", line):
            title, named = re.match(r"(.*?)\s*(?:\{ *#(\S+) *\})?$", match[1]).groups()
            plain = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]|\]\([^)]*\)", "", title)).strip().lower()
            found.add(named or re.sub(r"[-\s]+", "-", plain))
        found |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
    return found


def dead_links(path: Path, generated: frozenset[str] = frozenset()) -> list[str]:
    """Links of a page to files or headings that are not there.

    Args:
      path: of the page.
      generated: pages that the site makes, by their places in docs/.
    """
    dead = []
    for link in links(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix() in generated:
            continue
        if not target.exists():
            dead.append(f"{path.name}: {link} is not there")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            dead.append(f"{path.name}: {link}: no such heading")
    return dead
