"""The report of a study: one page that holds everything, and the same tables as Markdown."""

from pathlib import Path

from rvq_jax.audio import io
from rvq_jax.evaluate import page
from rvq_jax.evaluate.plots import spectrograms
from rvq_jax.evaluate.summary import origin
from rvq_jax.files import write_json, writing
from rvq_jax.study import plots
from rvq_jax.study.next_steps import next_steps
from rvq_jax.study.recommendation import answer, bits, bits_text, difference, heard

__all__ = [
    "answer",
    "codec_table",
    "markdown",
    "pattern_table",
    "provenance",
    "write",
    "write_json",
]

TITLE = "Which interleaving pattern for this audio?"
PATTERNS = """Bits per frame is the negative log-likelihood of all levels together on held-out
audio, so it compares patterns exactly. Differences from the first row have 95 % intervals over
held-out clips, paired; ± is the standard deviation over seeds, and one seed says nothing of how
training varies (--seeds 0 1 2 does). After short training bits also tell how fast a pattern is
learned; train longer to see what it can express.
Steps are forwards of the model. The real-time factor is seconds of compute per second of audio.
The Fréchet distance is between held-out and generated audio, on mel statistics without learned
weights: it compares rows of this table, not published values."""
CODEC = """Each row decodes that many levels of held-out audio. Use, entropy and perplexity are
those of the row's last level on the training set."""
INFORMATION = """Bits that two codes share, adjusted for chance (Vinh et al. 2010): what predicting
one of them after the other can gain."""
SPECTROGRAMS = "Spectrograms of a group share one scale of 60 dB; frequencies are on the mel scale."


def write(run_dir: str | Path, results: dict) -> Path:
    """Writes report.html into a run folder, whole or not at all, and returns its path.

    The page needs nothing else: plots and audio are inside. results: what results.json holds; its
    audio files are read from the run folder. Raises UserError if one of them is missing or is not
    audio, if matplotlib is missing, or if the folder cannot be written to.
    """
    run_dir = Path(run_dir)
    text = _page(run_dir, results)
    with writing(run_dir / "report.html") as path:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return run_dir / "report.html"


def markdown(results: dict) -> str:
    """The answer, the tables and where they come from, as Markdown."""
    parts = ["# Interleaving patterns", page.plain(answer(results))]
    parts += ["## Patterns", page.flat(PATTERNS), page.markdown_table(pattern_table(results))]
    parts += ["## Codec", page.flat(CODEC), page.markdown_table(codec_table(results))]
    parts += ["## Provenance", "\n".join(f"- {k}: {page.plain(v)}" for k, v in provenance(results))]
    return "\n\n".join(parts) + "\n"


def pattern_table(results: dict) -> list[list[str]]:
    """Header and one row per pattern, fewest bits first."""
    head = ["pattern", "steps", "bits per frame", "more than the first (95 %)"]
    head += ["real-time factor (s per s of audio)", "training, s"]
    head += ["Fréchet distance", "bits by level"]
    rows = sorted(results["patterns"], key=bits)
    return [head] + [
        [
            row["pattern"],
            str(row["steps"]),
            bits_text(row),
            _difference_text(results, row, rows[0]),
            f"{row['real_time_factor']:.3f}",
            f"{row['train_seconds']:.0f}",
            f"{row['frechet_distance']:.1f}",
            " + ".join(f"{bits:.2f}" for bits in row["bits_by_level"]),
        ]
        for row in rows
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
    data, codec = results["data"], results["codec"]
    model = [f"{name} {_number(value)}" for name, value in results["language_model"].items()]
    return [
        *origin(results),
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
            f"{codec.get('name', 'trained here')}, {codec['parameters']:,} parameters, "
            f"hop {codec['hop']}, {codec['frame_rate']:g} frames per second, "
            f"{len(codec['levels'])} levels of {codec.get('codebook_size', codec.get('size'))} "
            f"codes, {codec['levels'][-1]['kbps']:.2f} kbps{_trained(codec)}",
        ),
        ("Token models", ", ".join(model)),
    ]


def _page(run_dir: Path, results: dict) -> str:
    groups = {"reconstruction": [], "generation": []}
    for sample in results.get("samples", ()):
        groups[sample["group"]].append(_players(run_dir, sample))
    levels, data = results["codec"]["levels"], results["data"]
    codec = [
        (plots.against_levels(levels, name, f"{label} ({better} is better)"), label)
        for name, label, better in (
            ("si_sdr_db", "SI-SDR, dB", "more"),
            ("mel_distance", "mel distance", "less"),
        )
    ]
    if "code_counts" in results:
        codec.append((plots.codebook_use(results["code_counts"]), "How often each code is used"))
    information = results.get("information")
    if information:
        titles = "Mutual information between levels", "Mutual information over lags"
        codec.append((plots.shared_in_a_frame(information["levels"]), titles[0]))
        codec.append((plots.shared_over_lags(information["lags"]), titles[1]))
    steps = next_steps(run_dir, results, heard(results))
    main = [
        f"<p class='answer'>{page.escape(answer(results))}</p>",
        "<h2>Patterns</h2>",
        page.table(pattern_table(results), mark_first=True),
        f"<p class='note'>{PATTERNS}</p>",
        page.plot(plots.bits_against_steps(results["patterns"]), "Bits per frame against steps"),
        *_section("Generated audio", groups["generation"]),
        "<h2>Codec</h2>",
        page.table(codec_table(results)),
        f"<p class='note'>{CODEC}</p>",
        _plots(codec),
        *([f"<p class='note'>{INFORMATION}</p>"] if information else []),
        *_section("Reconstructed audio", groups["reconstruction"]),
        *_training(results.get("curves", {})),
        *(["<h2>What next</h2>", page.commands(steps)] if steps else []),
    ]
    footer = f"<h2>Provenance</h2>{page.terms(provenance(results))}"
    said = f"{data['name']}, {data['train_minutes'] + data['heldout_minutes']:.0f} minutes"
    return page.frame(TITLE, page.dated(said, results), main, footer)


def _plots(found: list[tuple[str, str]]) -> str:
    return f"<div class='plots'>{''.join(page.plot(*each) for each in found)}</div>"


def _training(curves: dict) -> list[str]:
    models = {name: points for name, points in curves.items() if name != "codec"}
    found = {"codec": curves["codec"]} if "codec" in curves else {}
    kinds = (found, "codec's loss"), (models, "token models' loss,\nbits per code")
    drawn = [
        (plots.training_curves(each, label), f"Loss of {' and '.join(each)} against updates")
        for each, label in kinds
        if each
    ]
    return ["<h2>Training</h2>", _plots(drawn)] if drawn else []


def _section(title: str, groups: list[str]) -> list[str]:
    return [f"<h2>{title}</h2><p class='note'>{SPECTROGRAMS}</p>", *groups] if groups else []


def _players(run_dir: Path, sample: dict) -> str:
    paths = [run_dir / player["file"] for player in sample["players"]]
    for path in paths:
        page.audio_type(path)
    audio = [io.read(path) for path in paths]
    pictures = spectrograms([x.mean(axis=1) for x, _ in audio], audio[0][1])
    sounds = [
        page.Player(player["label"], page.audio_uri(path), picture)
        for path, player, picture in zip(paths, sample["players"], pictures, strict=True)
    ]
    return page.players(sample["title"] or "No caption", sample["caption"], sounds)


def _difference_text(results: dict, row: dict, best: dict) -> str:
    pair = {} if row is best else difference(results, row, best)
    if pair.get("low") is None:
        return "" if row is best else f"{bits(row) - bits(best):.2f}"
    return f"{pair['mean']:.2f} ({pair['low']:.2f} to {pair['high']:.2f})"


def _trained(codec: dict) -> str:
    if not codec["updates"]:
        return ""
    return f", {codec['updates']} updates in {codec['train_seconds']:.0f} s"


def _number(value) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
