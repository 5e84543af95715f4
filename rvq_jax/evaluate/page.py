"""What pages share: their style and frame, text that is only text, tables, plots and players."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rvq_jax.errors import UserError, printable

TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; } h3 { margin-bottom: .5rem; }
p { max-width: 46rem; }
.answer { font-size: 1.15rem; border-left: 4px solid #0072b2; padding-left: 1rem; }
.note, figcaption { opacity: .8; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
td { white-space: nowrap; } th { font-weight: 600; }
thead th { vertical-align: bottom; line-height: 1.25; min-width: 5rem; }
th:first-child { text-align: left; padding-left: 0; } tbody th { font-weight: 400; }
tr.best > * { font-weight: 700; }
.plot img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
.plot { max-width: 52rem; margin: 1.5rem 0; }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr));
  gap: 1rem; }
.side { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr));
  gap: 0 2rem; }
.players figure { margin: 0; } .players figcaption { overflow-wrap: anywhere; }
.players img { display: block; width: 100%; height: auto; background: #fff; border-radius: 4px; }
audio { display: block; width: 100%; height: 2.5rem; margin-top: .25rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
"""
Marks = frozenset[tuple[int, int]]
FIRST = frozenset({0})


class Player(NamedTuple):
    """One sound of several to be compared."""

    label: str
    source: str  # a data URI, or an address beside the page
    image: str  # its spectrogram, a data URI


def frame(title: str, main: Sequence[str], footer: str, style: str = "") -> str:
    """A whole page of parts in HTML; needs nothing from outside but what the parts ask for.

    Args:
      title: of the window, as text.
      main: the parts, one a line.
      footer: the last part.
      style: CSS beside `STYLE`.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<link rel='icon' href='data:,'>",
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>",
        *main,
        f"</main><footer>{footer}</footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def terms(pairs: Sequence[tuple[str, str]]) -> str:
    """Terms and what is said of each, as a list in HTML."""
    rows = [f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs]
    return f"<dl>{''.join(rows)}</dl>"


def audio_uri(path: Path) -> str:
    """An audio file as a data URI; raises UserError for one that browsers do not play."""
    return f"data:{audio_type(path)};base64,{base64.b64encode(path.read_bytes()).decode()}"


def audio_type(path: Path) -> str:
    """The media type of an audio file; raises UserError for one that browsers do not play."""
    if path.suffix.lower() not in TYPES:
        raise UserError(f"{path}: browsers play {', '.join(TYPES)}; convert it")
    return TYPES[path.suffix.lower()]


def address(path: str) -> str:
    """A path relative to the page, as a link has it."""
    return quote(path, errors="surrogateescape")


def players(title: str, caption: str, sounds: Sequence[Player]) -> str:
    """Sounds to be compared side by side, under a title and a caption ("" for none)."""
    figures = []
    for sound in sounds:
        name = escape(f"{title}: {sound.label}")
        figures.append(
            f'<figure><img src="{sound.image}" alt="Spectrogram of {name}">'
            f'<audio controls preload="metadata" aria-label="{name}" '
            f'src="{escape(sound.source)}"></audio>'
            f"<figcaption>{escape(sound.label)}</figcaption></figure>"
        )
    note = f"<p class='note'>{escape(caption)}</p>" if caption else ""
    head = f"<h3>{escape(title)}</h3>{note}"
    return f"<section>{head}<div class='players'>{''.join(figures)}</div></section>"


def plot(uri: str, alt: str) -> str:
    """A plot in HTML; alt: what it shows, in words."""
    return f'<div class="plot"><img src="{uri}" alt="{escape(alt)}"></div>'


def table(
    rows: list[list[str]],
    marks: Marks = frozenset(),
    left: frozenset[int] = FIRST,
    mark_first: bool = False,
) -> str:
    """A head and rows of text in HTML.

    Args:
      rows: the head is the first.
      marks: row and column of the cells that stand out.
      left: the columns aligned left, of which the first is one.
      mark_first: the first row below the head stands out.
    """
    words = left - FIRST
    head = "".join(
        f"<th scope='col'{' class=word' * (j in words)}>{escape(cell)}</th>"
        for j, cell in enumerate(rows[0])
    )
    body = ""
    for i, (first, *rest) in enumerate(rows[1:], 1):
        cells = f"<th scope='row'>{escape(first)}</th>"
        for j, cell in enumerate(rest, 1):
            names = " ".join(["best"] * ((i, j) in marks) + ["word"] * (j in words))
            cells += f"<td{f' class={names!r}' if names else ''}>{escape(cell)}</td>"
        body += f"<tr{' class=best' if mark_first and i == 1 else ''}>{cells}</tr>"
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    # Focusable, so that a keyboard can scroll it.
    return f"<div class='scroll' tabindex='0'>{inside}</div>"


def markdown_table(
    rows: list[list[str]], marks: Marks = frozenset(), left: frozenset[int] = FIRST
) -> str:
    """The same in Markdown, of arguments as those of `table`."""
    lines = []
    for i, row in enumerate(rows):
        cells = [f"**{plain(x)}**" if (i, j) in marks else plain(x) for j, x in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.insert(1, "|" + "".join("---|" if j in left else "---:|" for j in range(len(rows[0]))))
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text in HTML, in which names of files and captions are only text."""
    return html.escape(printable(text))


def plain(text: str) -> str:
    """The same in Markdown, in any place of a line."""
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", html.escape(printable(text), quote=False))
    # Where a word begins or ends it would be emphasis, where a line begins a list.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", text)


def flat(text: str) -> str:
    """A paragraph on one line."""
    return " ".join(text.split())
