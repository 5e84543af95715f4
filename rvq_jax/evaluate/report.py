"""The report of an evaluation: one page of plots, tables and sounds, to be looked at and heard."""

from collections.abc import Sequence
from pathlib import Path

from rvq_jax.evaluate import curves, page, summary
from rvq_jax.evaluate.sounds import sounds
from rvq_jax.evaluate.speech import VOICE
from rvq_jax.evaluate.table import TITLES
from rvq_jax.evaluate.tokens import PLAYERS
from rvq_jax.files import writing

BLIND = """Blind listening, for any number of people: send them <a href='abx.html'>abx.html</a> (can
two sounds be told apart?) or <a href='mushra.html'>mushra.html</a> (how good is each?). Each saves
a file of answers; <code>rvq-jax evaluate --answers FILE…</code> reads them into this report."""

# What could be asked beside what was, and the words that ask it.
CODECS_NEXT = (
    ("Put coders beside them", "--against opus:6 opus:12 mp3:32"),
    ("Keep more clips, to be listened to", "--listened 24"),
)
MODELS_NEXT = (
    ("Narrow the intervals of what is heard", "--generate.clips 128"),
    ("See how much is chance: other clips, drawn anew", "--generate.seed 1"),
)


def write(folder: str | Path, results: dict) -> Path:
    """Writes report.html into the folder of an evaluation, whole or not at all.

    The page needs nothing else: plots and sounds are inside, unless the sounds are more than
    30 MiB, when it plays the files of audio/ beside it.

    Args:
      folder: of the evaluation, which holds the files that results names.
      results: what results.json holds, of codecs or of token models.

    Returns:
      The path of report.html.

    Raises:
      UserError: without matplotlib, when a sound is missing or is not audio, or when the folder
        cannot be written to.
    """
    folder = Path(folder)
    make = _codecs if results["kind"] == "codec" else _models
    text = make(folder, results)
    with writing(folder / "report.html") as path:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return folder / "report.html"


def _codecs(folder: Path, results: dict) -> str:
    systems = results["systems"]
    charts = [
        page.plot(curves.quality(metric, systems), f"{metric['label']} against bitrate")
        for metric in summary.measured(results)
    ]
    names = [system["name"] for system in systems]
    chief, *others = summary.tables(results)
    blind = [f"<p>{BLIND}</p>"] if (folder / "listening.json").exists() else []
    main = [
        f"<div class='plots'>{''.join(charts)}</div>",
        *_section(chief),
        *blind,
        *sounds(folder, results["players"], names),
        *(line for each in others for line in _section(each)),
    ]
    return _framed(results, main)


def _models(folder: Path, results: dict) -> str:
    chief, *others = summary.tables(results)
    charts = [page.plot(curves.bits_by_level(results["models"]), "Bits per frame by level")]
    heard = [model for model in results["models"] if model["forwards"]]
    if len(heard) > 1:
        uri, name = curves.bits_against_forwards(heard), "Bits per frame against forwards"
        charts.append(page.plot(uri, name))
        name = heard[0]["frechet"][0]["embedding"]
        uri = curves.distance_against_forwards(heard, name)
        charts.append(page.plot(uri, "Fréchet distance against forwards"))
    names = [model["name"] for model in results["models"]]
    main = [
        *_section(chief),
        f"<div class='plots'>{''.join(charts)}</div>",
        *sounds(folder, results["players"], names),
        *_speech(folder, results.get("speech")),
        *(line for each in others for line in _section(each)),
    ]
    return _framed(results, main)


def _speech(folder: Path, found: dict | None) -> list[str]:
    """Players of the first texts that were said: the voice, real audio, then the models."""
    if not found:
        return []
    names = [VOICE, *(system["name"] for system in found["systems"])]
    return sounds(folder, found["players"][:PLAYERS], names, "Speech")


def _framed(results: dict, main: Sequence[str]) -> str:
    if steps := _next(results):
        main = [*main, "<h2>What next</h2>", page.commands(steps)]
    said = page.dated(summary.data(results["kind"], results["data"]), results)
    footer = f"<h2>Provenance</h2>{page.terms(summary.provenance(results))}"
    return page.frame(TITLES[results["kind"]], said, main, footer)


def _next(results: dict) -> list[tuple[str, str]]:
    """Commands that run as they stand: what was measured before is not measured again."""
    command = results["command"]
    if not command.startswith("rvq-jax evaluate "):
        return []
    steps = CODECS_NEXT if results["kind"] == "codec" else MODELS_NEXT
    given = {word.partition("=")[0] for word in command.split()}
    return [(what, f"{command} {words}") for what, words in steps if words.split()[0] not in given]


def _section(table: summary.Table) -> list[str]:
    marks = frozenset((row + 1, column) for row, column in table.best)
    notes = [f"<p class='note'>{page.escape(note)}</p>" for note in table.said("Bold")]
    inside = [page.table([table.head, *table.rows], marks, table.left), *notes]
    if table.long:
        return [f"<details><summary>{page.escape(table.title)}</summary>", *inside, "</details>"]
    return [f"<h2>{page.escape(table.title)}</h2>", *inside]
