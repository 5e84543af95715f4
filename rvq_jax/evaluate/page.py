"""What pages share: their style and frame, text that is only text, tables, plots and players."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rvq_jax.errors import UserError, printable
from rvq_jax.evaluate import plots

TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, summary { line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; } h3 { margin-bottom: .5rem; }
p { max-width: 46rem; } a { color: var(--line-0); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none; }
.answer { font-size: 1.15rem; border-left: 4px solid var(--line-0); padding-left: 1rem; }
.note, figcaption { opacity: .8; font-size: .9rem; }
.scroll, .plot { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
td { white-space: nowrap; } th { font-weight: 600; }
thead th { vertical-align: bottom; line-height: 1.25; min-width: 5rem; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: Canvas; }
tbody th { font-weight: 400; max-width: min(18rem, 45vw); min-width: 8.5rem;
  overflow-wrap: anywhere; }
tr.best > *, td.best { font-weight: 700; } .word { text-align: left; }
td.word { min-width: 7rem; max-width: 18rem; white-space: normal; overflow-wrap: anywhere; }
summary { cursor: pointer; font-size: 1.5rem; font-weight: 700; margin: 2.5rem 0 1rem; }
.plots { display: grid; gap: 1rem; margin: 1.5rem 0; align-items: end;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20.5rem), 1fr)); }
.plot svg { display: block; width: 100%; height: auto; min-width: var(--least);
  max-width: calc(1.5 * var(--least)); }
.players { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.players figure { margin: 0; } .players figcaption { overflow-wrap: anywhere; }
.spectrogram { position: relative; height: 6rem; margin: 0 .5rem 1.25rem 3.25rem;
  font-size: .72rem; line-height: 1; white-space: nowrap; }
.spectrogram img { display: block; width: 100%; height: 100%; }
.spectrogram span { position: absolute; }
.spectrogram .hertz { right: 100%; padding-right: .35rem; transform: translateY(50%); }
.spectrogram .hertz::after { content: ""; position: absolute; right: 0; top: 50%; width: .2rem;
  border-top: 1px solid; }
.spectrogram .seconds { top: 100%; padding-top: .3rem; transform: translateX(-50%); }
audio { display: block; width: 100%; height: 2.5rem; margin-top: .25rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; overflow-wrap: anywhere; }
pre { margin: .25rem 0 .75rem; padding: .5rem .75rem; background: #8882; border-radius: 4px;
  font-size: .9rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 30rem) { h1 { font-size: 1.6rem; } }
"""
Marks = frozenset[tuple[int, int]]
FIRST = frozenset({0})


class Player(NamedTuple):
    """One sound of several to be compared."""

    label: str
    source: str  # a data URI, or an address beside the page
    picture: plots.Spectrogram


def frame(title: str, said: str, main: Sequence[str], footer: str) -> str:
    """A whole page of parts in HTML, with links to its sections on top; it needs nothing from
    outside but what the parts ask for.

    Args:
      title: of the window and of the page, as text.
      said: a line below it, as text: of what the page is, and of when.
      main: the parts, one a line, sections headed by h2, or by summary where they are closed.
      footer: the last part.
    """
    body, links = _with_links("\n".join([*main, f"</main><footer>{footer}</footer>"]))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<link rel='icon' href='data:,'>",
        f"<title>{escape(title)}</title><style>{plots.THEME}{STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1><p class='note'>{escape(said)}</p>",
        f"<nav aria-label='Contents'><ul>{links}</ul></nav>",
        f"{body}</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _with_links(body: str) -> tuple[str, str]:
    """The body with an id for each section's head, and links to them."""
    links = []

    def named(found: re.Match) -> str:
        tag, inside = found.groups()
        links.append(f"<li><a href='#s{len(links) + 1}'>{inside}</a></li>")
        return f"<{tag} id='s{len(links)}'>{inside}</{tag}>"

    return re.sub(r"<(h2|summary)>(.*?)</\1>", named, body), "".join(links)


def dated(text: str, results: dict) -> str:
    """A line of when results were made, if that is known, and of what they are of."""
    return f"{results['date']} · {text}" if "date" in results else text


def commands(pairs: Sequence[tuple[str, str]]) -> str:
    """What could be done next, and the command of each, in HTML."""
    rows = [
        f"<dt>{escape(what)}</dt><dd><pre><code>{escape(command)}</code></pre></dd>"
        for what, command in pairs
    ]
    return f"<dl>{''.join(rows)}</dl>"


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
            f"<figure>{_spectrogram(sound.picture, name)}"
            f'<audio controls preload="metadata" aria-label="{name}" '
            f'src="{escape(sound.source)}"></audio>'
            f"<figcaption>{escape(sound.label)}</figcaption></figure>"
        )
    note = f"<p class='note'>{escape(caption)}</p>" if caption else ""
    head = f"<h3>{escape(title)}</h3>{note}"
    return f"<section>{head}<div class='players'>{''.join(figures)}</div></section>"


def _spectrogram(picture: plots.Spectrogram, name: str) -> str:
    """Marks are text beside the picture, as large on a phone as anywhere."""
    marks = [
        f"<span class='{axis}' style='{side}: {100 * place:.1f}%'>{text}</span>"
        for axis, side, found in (
            ("hertz", "bottom", picture.hertz),
            ("seconds", "left", picture.seconds),
        )
        for text, place in found
    ]
    image = f'<img src="{picture.image}" alt="Spectrogram of {name}">'
    return f"<div class='spectrogram'>{image}{''.join(marks)}</div>"


def plot(chart: str, alt: str) -> str:
    """A plot in HTML.

    Args:
      chart: an SVG element (`plots.svg`).
      alt: what it shows, in words.
    """
    named = chart.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
    # Focusable, so that a keyboard can scroll it.
    return f"<div class='plot' tabindex='0'>{named}</div>"


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
