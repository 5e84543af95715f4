"""The report of a study: one page that holds everything, and the same tables as Markdown."""

from pathlib import Path

from rvq_jax.audio import io
from rvq_jax.evaluate import page
from rvq_jax.evaluate.plots import spectrograms
from rvq_jax.evaluate.summary import origin
from rvq_jax.files import write_json, writing
from rvq_jax.study import plots

__all__ = [
    "answer",
    "codec_table",
    "markdown",
    "pattern_table",
    "provenance",
    "write",
    "write_json",
]

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
SPECTROGRAMS = "Spectrograms of a group share one scale of 60 dB; mel bands from 0 Hz upwards."


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


def answer(results: dict) -> str:
    """Which pattern has the fewest bits, which costs least, and what lies between: one paragraph,
    from the numbers alone."""
    rows = sorted(results["patterns"], key=_bits)
    best, cheapest = rows[0], min(rows, key=lambda row: (row["steps"], _bits(row)))
    text = f"{best['pattern']} has the fewest bits per frame: {_bits_text(best)}, in "
    text += f"{best['steps']} steps for {best['frames']} frames."
    alike = [row["pattern"] for row in rows[1:] if _alike(results, row, best)]
    if alike:
        several = len(best["bits_per_frame"]["values"]) > 1
        spread = "the seeds or the held-out clips" if several else "the held-out clips"
        text += f" Within the spread of {spread}, {_listed(alike)} cannot be told from it."
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
    head = ["pattern", "steps", "bits per frame", "more than the first (95 %)"]
    head += ["real-time factor (s per s of audio)", "training, s"]
    head += ["Fréchet distance", "bits by level"]
    rows = sorted(results["patterns"], key=_bits)
    return [head] + [
        [
            row["pattern"],
            str(row["steps"]),
            _bits_text(row),
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
            f"{codec['name']}, {codec['parameters']:,} parameters, hop {codec['hop']}, "
            f"{codec['frame_rate']:g} frames per second, {len(codec['levels'])} levels of "
            f"{codec['codebook_size']} codes, {codec['levels'][-1]['kbps']:.2f} kbps"
            f"{_trained(codec)}",
        ),
        ("Token models", ", ".join(model)),
    ]


def _page(run_dir: Path, results: dict) -> str:
    shared = results["information"]
    groups = {"reconstruction": [], "generation": []}
    for sample in results["samples"]:
        groups[sample["group"]].append(_players(run_dir, sample))
    main = [
        "<h1>Which interleaving pattern for this audio?</h1>",
        f"<p class='answer'>{page.escape(answer(results))}</p>",
        "<h2>Patterns</h2>",
        page.table(pattern_table(results), mark_first=True),
        f"<p class='note'>{PATTERNS}</p>",
        page.plot(plots.bits_against_steps(results["patterns"]), "Bits per frame against steps"),
        *_section("Generated audio", groups["generation"], "side"),
        "<h2>Codec</h2>",
        page.table(codec_table(results)),
        f"<p class='note'>{CODEC}</p>",
        page.plot(
            plots.distortion_against_levels(results["codec"]["levels"]),
            "SI-SDR and mel distance against levels",
        ),
        page.plot(plots.codebook_use(results["code_counts"]), "How often each code is used"),
        page.plot(
            plots.mutual_information(shared["levels"], shared["lags"]),
            "Mutual information between levels and over lags",
        ),
        f"<p class='note'>{INFORMATION}</p>",
        *_section("Reconstructed audio", groups["reconstruction"]),
        "<h2>Training</h2>",
        page.plot(plots.training_curves(results["curves"]), "Loss against updates"),
    ]
    footer = f"<h2>Provenance</h2>{page.terms(provenance(results))}"
    return page.frame("Interleaving patterns", main, footer)


def _section(title: str, groups: list[str], style: str = "") -> list[str]:
    head = f"<h2>{title}</h2><p class='note'>{SPECTROGRAMS}</p><div class='{style}'>"
    return [head, *groups, "</div>"] if groups else []


def _players(run_dir: Path, sample: dict) -> str:
    paths = [run_dir / player["file"] for player in sample["players"]]
    for path in paths:
        page.audio_type(path)
    audio = [io.read(path) for path in paths]
    images = spectrograms([x.mean(axis=1) for x, _ in audio], audio[0][1])
    sounds = [
        page.Player(player["label"], page.audio_uri(path), image)
        for path, player, image in zip(paths, sample["players"], images, strict=True)
    ]
    return page.players(sample["title"], sample["caption"], sounds)


def _bits(row: dict) -> float:
    return row["bits_per_frame"]["mean"]


def _bits_text(row: dict) -> str:
    """One seed has no spread: no ± then."""
    bits = row["bits_per_frame"]
    spread = f" ± {bits['std']:.2f}" if len(bits["values"]) > 1 else ""
    return f"{bits['mean']:.2f}{spread}"


def _alike(results: dict, row: dict, best: dict) -> bool:
    """Whether a row and the best one differ by no more than chance has seeds or clips differ."""
    spread = row["bits_per_frame"]["std"] + best["bits_per_frame"]["std"]
    seeds = len(best["bits_per_frame"]["values"]) > 1 and _bits(row) - _bits(best) <= spread
    return seeds or not _pair(results, row, best).get("different", True)


def _pair(results: dict, row: dict, best: dict) -> dict:
    """A row less the best one, over clips; empty if they were not compared."""
    wanted = row["pattern"], best["pattern"]
    for pair in results["pairs"]:
        if (pair["a"], pair["b"]) == wanted:
            return pair
        if (pair["b"], pair["a"]) == wanted:
            negated = {"mean": "mean", "low": "high", "high": "low"}
            ends = {x: None if pair[y] is None else -pair[y] for x, y in negated.items()}
            return pair | ends
    return {}


def _difference_text(results: dict, row: dict, best: dict) -> str:
    pair = {} if row is best else _pair(results, row, best)
    if pair.get("low") is None:
        return "" if row is best else f"{_bits(row) - _bits(best):.2f}"
    return f"{pair['mean']:.2f} ({pair['low']:.2f} to {pair['high']:.2f})"


def _trained(codec: dict) -> str:
    if not codec["updates"]:
        return ""
    return f", {codec['updates']} updates in {codec['train_seconds']:.0f} s"


def _more(row: dict, best: dict) -> str:
    return f"{100 * (_bits(row) / _bits(best) - 1):.1f}%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _number(value) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
