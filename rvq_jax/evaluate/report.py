"""The report of a study: one page that holds everything, and the same tables as Markdown."""

import base64
from html import escape
from pathlib import Path

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.evaluate import plots

TYPES = {".flac": "audio/flac", ".wav": "audio/wav", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { vertical-align: bottom; font-weight: 600; }
tr.best td { font-weight: 700; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.answer { font-size: 1.15rem; border-left: 4px solid #0072b2; padding-left: 1rem; }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .9rem; overflow-wrap: anywhere; }
audio { width: 100%; } .players img { display: block; width: 100%; height: 4.5rem; }
.caption, footer { opacity: .75; font-size: .95rem; }
"""


def write(run: str | Path, results: dict) -> Path:
    """Writes report.html into a run folder: players, tables and plots, no outside resource.

    results: what results.json holds; its audio files are read from the run folder.
    """
    run = Path(run)
    page = _page(run, results)
    with files.writing(run / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return run / "report.html"


def markdown(results: dict) -> str:
    """The answer and the tables as Markdown."""
    parts = [
        "# Interleaving patterns",
        answer(results),
        "## Patterns",
        _markdown_table(pattern_table(results)),
        "## Codec",
        _markdown_table(codec_table(results)),
        provenance(results),
    ]
    return "\n\n".join(parts) + "\n"


def answer(results: dict) -> str:
    """Which pattern to use, in two sentences, from the numbers alone."""
    rows = sorted(results["patterns"], key=lambda row: row["bits_per_frame"]["mean"])
    best, cheapest = rows[0], min(rows, key=lambda row: (row["steps"], _bits(row)))
    text = f"{best['pattern']} has the fewest bits per frame ({_bits(best):.2f}"
    text += f" in {best['steps']} steps for {best['frames']} frames)."
    # Patterns within a tenth of the cheapest in steps cost the same to a user.
    quick = [row for row in rows if row["steps"] <= 1.1 * cheapest["steps"]]
    choice = quick[0]
    if choice is best:
        return text + " Nothing cheaper is as good: use it."
    more = 100 * (_bits(choice) / _bits(best) - 1)
    share = best["steps"] / choice["steps"]
    return text + (
        f" {choice['pattern']} takes {share:.1f} times fewer steps ({choice['steps']}) "
        f"for {more:.1f} % more bits ({_bits(choice):.2f}): use it when generation must be quick."
    )


def pattern_table(results: dict) -> list[list[str]]:
    """Header and one row per pattern, fewest bits first."""
    head = ["pattern", "steps", "bits per frame", "bits by level", "training, s"]
    head += ["generation, s", "real-time factor (s per s)", "Fréchet distance"]
    rows = sorted(results["patterns"], key=lambda row: row["bits_per_frame"]["mean"])
    return [head] + [
        [
            row["pattern"],
            str(row["steps"]),
            f"{_bits(row):.2f} ± {row['bits_per_frame']['std']:.2f}",
            " + ".join(f"{bits:.2f}" for bits in row["bits_by_level"]),
            f"{row['train_seconds']:.0f}",
            f"{row['generate_seconds']:.2f}",
            f"{row['real_time_factor']:.3f}",
            f"{row['frechet_distance']:.1f}",
        ]
        for row in rows
    ]


def codec_table(results: dict) -> list[list[str]]:
    """Header and one row per number of levels."""
    head = ["levels", "kbps", "SI-SDR, dB", "mel distance", "energy this level explains"]
    head += ["codes used", "entropy, bits", "perplexity"]
    return [head] + [
        [
            str(row["level"]),
            f"{row['kbps']:.2f}",
            f"{row['si_sdr_db']:.2f}",
            f"{row['mel_distance']:.3f}",
            f"{100 * row['energy_explained']:.1f} %",
            f"{100 * row['use']:.0f} %",
            f"{row['entropy_bits']:.2f}",
            f"{row['perplexity']:.0f}",
        ]
        for row in results["codec"]["levels"]
    ]


def provenance(results: dict) -> str:
    """Where the numbers come from."""
    machine, data = results["machine"], results["data"]
    where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GB"
    if machine["accelerator"]:
        where += f", {machine['accelerator']}"
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (
        f"Data: {data['name']}, {data['clips']} clips, {data['train_minutes']:.1f} minutes to "
        f"train on and {data['heldout_minutes']:.1f} held out, {data['rate']} Hz. "
        f"Codec: {results['codec']['parameters']:,} parameters, {results['codec']['updates']} "
        f"updates in {results['codec']['train_seconds']:.0f} s. Token models: "
        f"{results['language_model']['parameters']:,} parameters, "
        f"{results['language_model']['updates']} updates. "
        f"Seeds {', '.join(map(str, results['seeds']))}; ± is their standard deviation. "
        f"Commit {results['commit']}; {versions}; {where}; {results['wall_seconds']:.0f} s in all, "
        f"{results['peak_memory_gb']:.1f} GB at most. Command: {results['command']}"
    )


def _page(run: Path, results: dict) -> str:
    information = results["information"]
    figures = [
        (plots.bits_against_steps(results["patterns"]), "Bits per frame against steps"),
        (
            plots.distortion_against_levels(results["codec"]["levels"]),
            "Distortion against levels",
        ),
        (plots.codebook_use(results["code_counts"]), "Codebook use by level"),
        (
            plots.mutual_information(information["levels"], information["lags"]),
            "Mutual information between levels and over lags",
        ),
        (plots.training_curves(results["curves"]), "Training curves"),
    ]
    bits, *codec, curves = [_image(uri, alt) for uri, alt in figures]
    groups = {"reconstruction": [], "generation": []}
    for group in results["samples"]:
        groups[group["group"]].append(_players(run, group, results["data"]["rate"]))
    return "\n".join(
        [
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width, initial-scale=1'>",
            f"<title>Interleaving patterns</title><style>{STYLE}</style></head><body>",
            "<h1>Which interleaving pattern for this audio?</h1>",
            f"<p class='answer'>{escape(answer(results))}</p>",
            "<h2>Patterns</h2>",
            "<p>Bits per frame is the negative log-likelihood of all levels together on held-out "
            "audio: it compares patterns exactly. Steps are the model's forwards.</p>",
            _table(pattern_table(results), mark_first=True),
            bits,
            "<h2>Generated audio</h2>",
            *groups["generation"],
            "<h2>Codec</h2>",
            _table(codec_table(results)),
            *codec,
            "<h2>Reconstructed audio</h2>",
            *groups["reconstruction"],
            "<h2>Training</h2>",
            curves,
            f"<footer><h2>Provenance</h2><p>{escape(provenance(results))}</p></footer>",
            "</body></html>",
        ]
    )


def _players(run: Path, group: dict, rate: int) -> str:
    figures = []
    for player in group["players"]:
        path = run / player["file"]
        audio_SC, rate = io.read(path)
        data = base64.b64encode(path.read_bytes()).decode()
        name = escape(f"{group['title']}: {player['label']}", quote=True)
        image = plots.spectrogram(audio_SC.mean(axis=1), rate)
        figures.append(
            f"<figure><img src='{image}' alt='Spectrogram of {name}'>"
            f"<audio controls preload='metadata' aria-label='{name}' "
            f"src='data:{TYPES[path.suffix]};base64,{data}'></audio>"
            f"<figcaption>{escape(player['label'])}</figcaption></figure>"
        )
    caption = f"<p class='caption'>{escape(group['caption'])}</p>" if group["caption"] else ""
    return (
        f"<section><h3>{escape(group['title'])}</h3>{caption}"
        f"<div class='players'>{''.join(figures)}</div></section>"
    )


def _image(uri: str, alt: str) -> str:
    return f"<p><img src='{uri}' alt='{escape(alt, quote=True)}'></p>"


def _table(rows: list[list[str]], mark_first: bool = False) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = ""
    for i, row in enumerate(rows[1:]):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        body += f"<tr{' class=best' if mark_first and i == 0 else ''}>{cells}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='scroll'>{table}</div>"


def _markdown_table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _bits(row: dict) -> float:
    return row["bits_per_frame"]["mean"]
