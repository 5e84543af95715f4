"""The tables of docs/how_to/precision.md, from what benchmarks/precision.py measured.

python benchmarks/precision_tables.py
"""

import json
from pathlib import Path

from plan_tables import END, gib, row, table

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results/precision.jsonl", ROOT / "docs/how_to/precision.md"
BEGIN = "<!-- tables: benchmarks/precision_tables.py -->\n"


def quality(lines: list[dict]) -> str:
    """Of the trained model."""
    rows = []
    for found in lines:
        low, high = found["bits_interval"]
        near, far = found["frechet_log-mel_statistics_interval"]
        rows.append(
            row(
                found["precision"],
                f"{found['bits_per_frame']:.2f} ({low:.2f} to {high:.2f})",
                f"{found['bits_over_float32']:+.4f}",
                f"{found['greedy_agreement']:.1%}",
                f"{found['frechet_log-mel_statistics']:.1f} ({near:.1f} to {far:.1f})",
            )
        )
    head = "| precision | held-out bits per frame | over float32 | greedy agreement | "
    head += "Fréchet distance, log-mel |"
    return table(head, rows)


def bounds(lines: list[dict]) -> str:
    """Of the published sizes."""
    rows = []
    for found in lines:
        bound = ["", "", ""]
        if "topology" in found:
            bound[0] = f"{gib(found['total_bytes'])}{'' if found['fits'] else ', does not fit'}"
        if found.get("seconds"):
            bound[1:] = f"{found['seconds']:.2f}", f"{found['times_real_time_of_all']:.1f}"
        weights = [gib(found[f"{name}_bytes"]) for name in ("weight", "cache")]
        rows.append(row(found["size"], found["precision"], found["prompts"], *weights, *bound))
    head = "| size | precision | prompts | weights, GiB | cache, GiB | "
    return table(head + "all on the chip, GiB | seconds ≥ | times real time, all ≤ |", rows)


def main() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]

    def of(name: str) -> list[dict]:
        return [line for line in lines if line["benchmark"] == f"precision, {name}"]

    trained, decoding = of("trained"), of("decoding")
    commits = " and ".join(sorted({line["commit"] for line in lines}))
    first = trained[0]
    made = (
        "A delay model of the built-in corpus, 1000 updates: held-out bits with their 95 % "
        "interval over\nclips, the share of codes whose likeliest value is float32's given the "
        f"same past ({first['codes']:,} codes),\nand the "
        f"distance from real audio of {first['clips']} clips that each generates (of other real "
        f"clips {first['frechet_log-mel_statistics_floor']:.2f}):\n\n"
        + quality(trained)
        + "\nGeneration of 30 s by MusicGen, guided, on one v5e chip, compiled and read. No chip "
        "ran: seconds are\nits limits.\n\n"
        + bounds(decoding)
        + f"\nSeed {first['seed']}, commit {commits}, {first['machine']['cpu']}.\n"
    )
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + made + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
