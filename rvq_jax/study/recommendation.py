"""What a study says of its patterns, and when it says nothing: of differences that clips do not
show, and of a codec that has collapsed."""

from rvq_jax.evaluate.cells import spread

# To a user, patterns within a tenth of the fewest steps cost the same.
ALMOST = 1.1
# A codec has collapsed where a level's codes say less than a bit (perplexity 2), or where all of
# them decode to what has nothing to do with the clip: at -20 dB a hundredth of its energy. Bits of
# such codes are few whatever the pattern, and say nothing of patterns.
FEWEST_CODES, LEAST_SI_SDR = 2.0, -20.0


def answer(results: dict) -> str:
    """Which pattern has the fewest bits, which cannot be told from it, and what less costs: one
    paragraph, from the numbers alone. None is recommended beyond what intervals over clips say."""
    rows = sorted(results["patterns"], key=bits)
    best, cheapest = rows[0], _cheapest(rows)
    text = f"{best['pattern']} has the fewest bits per frame: {bits_text(best)}, in "
    text += f"{best['steps']} steps for {best['frames']} frames."
    if why := collapse(results):
        return f"{text} No pattern is recommended: {why}."
    if len(rows) < 2:
        return text
    if not results.get("pairs"):
        return f"{text} None is recommended: there are no paired intervals over held-out clips."
    alike = [best, *(row for row in rows[1:] if _is_alike(results, row, best))]
    least, almost = _cheapest(alike), ALMOST * cheapest["steps"]
    if len(alike) > 1:
        several = len(best["bits_per_frame"]["values"]) > 1
        of = "the seeds or the held-out clips" if several else "the held-out clips"
        names = [row["pattern"] for row in alike[1:]]
        text += f" Within the spread of {of}, {_listed(names)} cannot be told from it; "
        text += f"{least['pattern']} is the cheapest of them: {least['steps']} steps."
        if least["steps"] <= almost:
            return text
    elif best["steps"] <= almost:
        also = "also takes the fewest steps" if cheapest is best else "takes hardly more steps"
        return f"{text} Use {best['pattern']}: it {also}."
    quick = next(row for row in rows if row["steps"] <= almost)
    text += f" {cheapest['pattern']} costs least: {cheapest['steps']} steps, "
    text += f"{cheapest['real_time_factor']:.2g} s of compute per second of audio, for "
    text += f"{_more(cheapest, best)} more bits ({bits_text(cheapest)})."
    if quick is not cheapest:
        text += f" {quick['pattern']} takes hardly more ({quick['steps']} steps) with "
        text += f"{_more(quick, best)} more bits than {best['pattern']}."
    if _is_alike(results, quick, least):
        return text
    fewer = least["steps"] / quick["steps"]
    return text + (
        f" The trade-off: {least['pattern']} for likelihood, {quick['pattern']} for {fewer:.1f} "
        "times fewer steps."
    )


def collapse(results: dict) -> str | None:
    """Why a study's codec has nothing for patterns to predict; None where it has."""
    levels = results["codec"]["levels"]
    for row in levels:
        if row["perplexity"] < FEWEST_CODES:
            return (
                f"the codec has collapsed: its level {row['level']} has a perplexity of "
                f"{row['perplexity']:.1f} codes, and below {FEWEST_CODES:g} says less than a bit"
            )
    if levels and (decibels := levels[-1]["si_sdr_db"]) < LEAST_SI_SDR:
        return (
            f"the codec has collapsed: at {decibels:.0f} dB of SI-SDR, below {LEAST_SI_SDR:g}, "
            "less than a hundredth of what it decodes is the clip"
        )
    return None


def heard(results: dict) -> str | None:
    """The pattern to be tried first: the cheapest that cannot be told from the one with the fewest
    bits; none of a collapsed codec."""
    if collapse(results):
        return None
    rows = sorted(results["patterns"], key=bits)
    alike = [row for row in rows if row is rows[0] or _is_alike(results, row, rows[0])]
    return _cheapest(alike)["pattern"]


def bits(row: dict) -> float:
    """A pattern's bits per frame."""
    return row["bits_per_frame"]["mean"]


def bits_text(row: dict) -> str:
    """The same as a table has them, with their spread over seeds."""
    found = row["bits_per_frame"]
    return f"{found['mean']:.2f}{spread(found['std'], len(found['values']))}"


def _cheapest(rows: list[dict]) -> dict:
    return min(rows, key=lambda row: (row["steps"], bits(row)))


def _is_alike(results: dict, row: dict, best: dict) -> bool:
    """Whether a row and the best one differ by no more than chance has seeds or clips differ; by
    chance too, as far as is known, where clips were not compared."""
    std = row["bits_per_frame"]["std"] + best["bits_per_frame"]["std"]
    seeds = len(best["bits_per_frame"]["values"]) > 1 and bits(row) - bits(best) <= std
    return seeds or not difference(results, row, best).get("different", False)


def difference(results: dict, row: dict, best: dict) -> dict:
    """A row less the best one, over clips; empty if they were not compared."""
    wanted = row["pattern"], best["pattern"]
    for pair in results.get("pairs", ()):
        if (pair["a"], pair["b"]) == wanted:
            return pair
        if (pair["b"], pair["a"]) == wanted:
            negated = {"mean": "mean", "low": "high", "high": "low"}
            ends = {x: None if pair[y] is None else -pair[y] for x, y in negated.items()}
            return pair | ends
    return {}


def _more(row: dict, best: dict) -> str:
    return f"{100 * (bits(row) / bits(best) - 1):.1f}%"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
