"""The report of a study: one page that holds everything, and the same tables as Markdown."""

import base64
import html
import re
from pathlib import Path

from rvq_jax.audio import io
from rvq_jax.errors import UserError, printable
from rvq_jax.evaluate import plots
from rvq_jax.files import write_json, writing

__all__ = [
    "answer",
    "codec_table",
    "markdown",
    "pattern_table",
    "provenance",
    "write",
    "write_json",
]

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
PATTERNS = """Bits per frame is the negative log-likelihood of all levels together on held-out
audio, so it compares patterns exactly; ± is the standard deviation over seeds. After short
training it also tells how fast a pattern is learned; train longer to see what it can express.
Steps are forwards of the model. The real-time factor is seconds of compute per second of audio.
The Fréchet distance is between held-out and generated audio, on mel statistics without learned
weights: it compares rows of this table, not published values."""
CODEC = """Each row decodes that many levels of held-out audio. Use, entropy and perplexity are
those of the row's last level on the training set."""
INFORMATION = """Bits that two codes share, adjusted for chance (Vinh et al. 2010): what predicting
one of them after the other can gain."""
SPECTROGRAMS = "Spectrograms of a group share one scale of 60 dB; mel bands from 0 Hz upwards."


def write(run_dir: str | Path, results: dict) -> Path:
    """Writes report.html into a run folder, whole or not at all, and returns its path.

    The page needs nothing else: plots and audio are inside. results: what results.json holds; its
    audio files are read from the run folder. Raises UserError if one of them is missing or is not
    audio, if matplotlib is missing, or if the folder cannot be written to.
    """
    run_dir = Path(run_dir)
    page = _page(run_dir, results)
    with writing(run_dir / "report.html") as path:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return run_dir / "report.html"


def markdown(results: dict) -> str:
    """The answer, the tables and where they come from, as Markdown."""
    parts = ["# Interleaving patterns", _plain(answer(results))]
    parts += ["## Patterns", _flat(PATTERNS), _markdown_table(pattern_table(results))]
    parts += ["## Codec", _flat(CODEC), _markdown_table(codec_table(results))]
    parts += ["## Provenance", "\n".join(f"- {k}: {_plain(v)}" for k, v in provenance(results))]
    return "\n\n".join(parts) + "\n"


def answer(results: dict) -> str:
    """Which pattern has the fewest bits, which costs least, and what lies between: one paragraph,
    from the numbers alone."""
    rows = sorted(results["patterns"], key=_bits)
    best, cheapest = rows[0], min(rows, key=lambda row: (row["steps"], _bits(row)))
    text = f"{best['pattern']} has the fewest bits per frame: {_bits_text(best)}, in "
    text += f"{best['steps']} steps for {best['frames']} frames."
    alike = [row["pattern"] for row in rows[1:] if _alike(row, best)]
    if alike:
        text += f" Within the spread of the seeds, {_listed(alike)} cannot be told from it."
    if cheapest is best:
        return text + (" It also takes the fewest steps: use it." if len(rows) > 1 else "")
    text += f" {cheapest['pattern']} costs least: {cheapest['steps']} steps, "
    text += f"{cheapest['real_time_factor']:.2g} s of compute per second of audio, for "
    text += f"{_more(cheapest, best)} more bits ({_bits_text(cheapest)})."
    # To a user, patterns within a tenth of the fewest steps cost the same.
    quick = next(row for row in rows if row["steps"] <= 1.1 * cheapest["steps"])
    if quick is best:
        return text + f" Use {best['pattern']}: it takes hardly more steps."
    if quick is not cheapest:
        text += f" {quick['pattern']} takes hardly more ({quick['steps']} steps) with "
        text += f"{_more(quick, best)} more bits than {best['pattern']}."
    fewer = best["steps"] / quick["steps"]
    return text + (
        f" The trade-off: {best['pattern']} for likelihood, {quick['pattern']} for {fewer:.1f} "
        "times fewer steps."
    )


def pattern_table(results: dict) -> list[list[str]]:
    """Header and one row per pattern, fewest bits first."""
    head = ["pattern", "steps", "bits per frame", "real-time factor (s per s of audio)"]
    head += ["generation, s", "training, s", "Fréchet distance", "bits by level"]
    return [head] + [
        [
            row["pattern"],
            str(row["steps"]),
            _bits_text(row),
            f"{row['real_time_factor']:.3f}",
            f"{row['generate_seconds']:.2f}",
            f"{row['train_seconds']:.0f}",
            f"{row['frechet_distance']:.1f}",
            " + ".join(f"{bits:.2f}" for bits in row["bits_by_level"]),
        ]
        for row in sorted(results["patterns"], key=_bits)
    ]


def codec_table(results: dict) -> list[list[str]]:
    """Header and one row per number of levels."""
    head = ["levels", "kbps", "SI-SDR, dB", "mel distance", "energy its last level explains"]
    head += ["codes used", "entropy, bits", "perplexity"]
    return [head] + [
        [
            str(row["level"]),
            f"{row['kbps']:.2f}",
            f"{row['si_sdr_db']:.2f}",
            f"{row['mel_distance']:.3f}",
            f"{100 * row['energy_explained']:.1f}%",
            f"{100 * row['use']:.0f}%",
            f"{row['entropy_bits']:.2f}",
            f"{row['perplexity']:.0f}",
        ]
        for row in results["codec"]["levels"]
    ]


def provenance(results: dict) -> list[tuple[str, str]]:
    """Where the numbers come from: pairs of a term and its text."""
    machine, data, codec = results["machine"], results["data"], results["codec"]
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB"
    if machine["accelerator"]:
        where += f", {machine['accelerator']}"
    model = [f"{name} {_number(value)}" for name, value in results["language_model"].items()]
    return [
        ("Command", results["command"]),
        ("Commit", results["commit"]),
        ("Versions", ", ".join(f"{name} {number}" for name, number in results["versions"].items())),
        ("Machine", where),
        (
            "Cost",
            f"{results['wall_seconds']:.0f} s in all, {results['peak_memory_gb']:.1f} GB of memory",
        ),
        ("Seeds", ", ".join(map(str, results["seeds"]))),
        (
            "Data",
            f"{data['name']}: {data['clips']} clips, {data['train_minutes']:.1f} minutes to train "
            f"on, {data['heldout_minutes']:.1f} held out, {data['rate']} Hz",
        ),
        (
            "Codec",
            f"{codec['parameters']:,} parameters, hop {codec['hop']}, {codec['frame_rate']:g} "
            f"frames per second, {codec['codebook_size']} codes per level, "
            f"{codec['updates']} updates in {codec['train_seconds']:.0f} s",
        ),
        ("Token models", ", ".join(model)),
    ]


def _page(run_dir: Path, results: dict) -> str:
    shared = results["information"]
    groups = {"reconstruction": [], "generation": []}
    for sample in results["samples"]:
        groups[sample["group"]].append(_players(run_dir, sample))
    rows = [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in provenance(results)]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<link rel='icon' href='data:,'>",
        f"<title>Interleaving patterns</title><style>{STYLE}</style></head><body><main>",
        "<h1>Which interleaving pattern for this audio?</h1>",
        f"<p class='answer'>{escape(answer(results))}</p>",
        "<h2>Patterns</h2>",
        _table(pattern_table(results), mark_first=True),
        f"<p class='note'>{PATTERNS}</p>",
        _plot(plots.bits_against_steps(results["patterns"]), "Bits per frame against steps"),
        *_section("Generated audio", groups["generation"], "side"),
        "<h2>Codec</h2>",
        _table(codec_table(results)),
        f"<p class='note'>{CODEC}</p>",
        _plot(
            plots.distortion_against_levels(results["codec"]["levels"]),
            "SI-SDR and mel distance against levels",
        ),
        _plot(plots.codebook_use(results["code_counts"]), "How often each code is used"),
        _plot(
            plots.mutual_information(shared["levels"], shared["lags"]),
            "Mutual information between levels and over lags",
        ),
        f"<p class='note'>{INFORMATION}</p>",
        *_section("Reconstructed audio", groups["reconstruction"]),
        "<h2>Training</h2>",
        _plot(plots.training_curves(results["curves"]), "Loss against updates"),
        f"</main><footer><h2>Provenance</h2><dl>{''.join(rows)}</dl></footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _section(title: str, groups: list[str], style: str = "") -> list[str]:
    head = f"<h2>{title}</h2><p class='note'>{SPECTROGRAMS}</p><div class='{style}'>"
    return [head, *groups, "</div>"] if groups else []


def _players(run_dir: Path, sample: dict) -> str:
    paths = [run_dir / player["file"] for player in sample["players"]]
    unknown = [path for path in paths if path.suffix.lower() not in TYPES]
    if unknown:
        raise UserError(f"{unknown[0]}: browsers play {', '.join(TYPES)}; convert it")
    audio = [io.read(path) for path in paths]
    images = plots.spectrograms([x.mean(axis=1) for x, _ in audio], audio[0][1])
    figures = []
    for path, player, image in zip(paths, sample["players"], images, strict=True):
        data = base64.b64encode(path.read_bytes()).decode()
        name = escape(f"{sample['title']}: {player['label']}")
        figures.append(
            f'<figure><img src="{image}" alt="Spectrogram of {name}">'
            f'<audio controls preload="metadata" aria-label="{name}" '
            f'src="data:{TYPES[path.suffix.lower()]};base64,{data}"></audio>'
            f"<figcaption>{escape(player['label'])}</figcaption></figure>"
        )
    caption = f"<p class='note'>{escape(sample['caption'])}</p>" if sample["caption"] else ""
    title = f"<h3>{escape(sample['title'])}</h3>{caption}"
    return f"<section>{title}<div class='players'>{''.join(figures)}</div></section>"


def _plot(uri: str, alt: str) -> str:
    return f'<div class="plot"><img src="{uri}" alt="{escape(alt)}"></div>'


def _table(rows: list[list[str]], mark_first: bool = False) -> str:
    head = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in rows[0])
    body = ""
    for i, (first, *rest) in enumerate(rows[1:]):
        cells = f"<th scope='row'>{escape(first)}</th>"
        cells += "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        body += f"<tr{' class=best' if mark_first and i == 0 else ''}>{cells}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    # Focusable, so that a keyboard can scroll it.
    return f"<div class='scroll' tabindex='0'>{table}</div>"


def _markdown_table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(lines)


def _bits(row: dict) -> float:
    return row["bits_per_frame"]["mean"]


def _bits_text(row: dict) -> str:
    """One seed has no spread: no ± then."""
    bits = row["bits_per_frame"]
    spread = f" ± {bits['std']:.2f}" if len(bits["values"]) > 1 else ""
    return f"{bits['mean']:.2f}{spread}"


def _alike(row: dict, best: dict) -> bool:
    spread = row["bits_per_frame"]["std"] + best["bits_per_frame"]["std"]
    return len(best["bits_per_frame"]["values"]) > 1 and _bits(row) - _bits(best) <= spread


def _more(row: dict, best: dict) -> str:
    return f"{100 * (_bits(row) / _bits(best) - 1):.1f}%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _number(value) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def escape(text: str) -> str:
    """Text in HTML, in which names of files and captions are only text."""
    return html.escape(printable(text))


def _plain(text: str) -> str:
    """The same in Markdown, in any place of a line."""
    text = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", html.escape(printable(text), quote=False))
    # Where a word begins or ends it would be emphasis, where a line begins a list.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", text)


def _flat(text: str) -> str:
    return " ".join(text.split())
