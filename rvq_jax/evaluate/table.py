"""The tables of an evaluation as plain text for a terminal, and as Markdown."""

import textwrap
import unicodedata

from rvq_jax.errors import clipped, printable
from rvq_jax.evaluate import page, summary
from rvq_jax.evaluate.summary import Table

WIDTH = 100  # columns of a terminal that a table keeps to, as long as one number beside names fits
NAME = 36  # letters of a name that are shown
TITLES = {"codec": "Quality of codecs", "tokens": "Quality of token models"}


def table(results: dict) -> str:
    """The numbers of an evaluation as plain text, in 100 columns where they fit.

    results: what results.json holds, of codecs or of token models.
    """
    parts = [_text(each) for each in _brief(results)]
    return "\n\n".join(parts) + "\n"


def markdown(results: dict) -> str:
    """The same tables as Markdown, under a heading and with where they come from."""
    parts = [f"# {TITLES[results['kind']]}"]
    for each in _brief(results):
        rows = [each.head, *each.rows]
        parts += [f"## {each.title}", page.markdown_table(rows, _down(each), each.left)]
        parts += [page.plain(note) for note in each.said("Bold")]
    said = [f"- {term}: {page.plain(text)}" for term, text in summary.provenance(results)]
    return "\n\n".join([*parts, "## Provenance", "\n".join(said)]) + "\n"


def _brief(results: dict) -> list[Table]:
    return [each for each in summary.tables(results) if not each.long]


def _down(each: Table) -> frozenset[tuple[int, int]]:
    """Marks as places in rows of which the head is the first."""
    return frozenset((row + 1, column) for row, column in each.best)


def _text(each: Table) -> str:
    rows = [[_shown(cell) for cell in row] for row in [each.head, *each.rows]]
    columns = [list(column) for column in zip(*rows, strict=True)]
    for i, column in enumerate(columns):
        if any(place == i for _, place in each.best):
            starred = {row + 1 for row, place in each.best if place == i}
            columns[i] = [
                cell + (" *" if row in starred else "  ") for row, cell in enumerate(column)
            ]
    columns = [_aligned(column, left=i in each.left) for i, column in enumerate(columns)]
    blocks = [_block(block) for block in _blocks(columns, each.keys)]
    lines = ["\n".join(textwrap.wrap(printable(note), WIDTH)) for note in each.said("Marked *")]
    return "\n\n".join([each.title, *blocks, "\n".join(lines)])


def columns(rows: list[list[str]], keys: int = 1) -> str:
    """Rows as aligned columns in blocks of 100, a head first; keys: columns that say what a row is
    of, and stand in every block."""
    shown = [[_shown(cell) for cell in row] for row in rows]
    made = [_aligned(list(c), left=i < keys) for i, c in enumerate(zip(*shown, strict=True))]
    return "\n\n".join(_block(block) for block in _blocks(made, keys))


def _block(columns: list[list[str]]) -> str:
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _blocks(columns: list[list[str]], keys: int) -> list[list[list[str]]]:
    """Columns in groups that fit the width, each after those that say what a row is of."""
    names, rest = columns[:keys], columns[keys:]
    blocks: list[list[list[str]]] = []
    for column in rest:
        used = sum(width(c[0]) + 2 for c in blocks[-1]) if blocks else WIDTH
        if used + width(column[0]) > WIDTH:
            blocks.append([*names])
        blocks[-1].append(column)
    return blocks


def _aligned(column: list[str], left: bool) -> list[str]:
    wide = max(map(width, column))
    return [
        cell + " " * (wide - width(cell)) if left else " " * (wide - width(cell)) + cell
        for cell in column
    ]


def _shown(cell: str) -> str:
    return clipped(printable(cell), NAME)


def width(text: str) -> int:
    """Columns that a terminal gives a text: two for wide letters, none for marks on others."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
