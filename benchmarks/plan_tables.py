"""The tables of docs/how_to/pods.md, from what benchmarks/plan.py measured.

python benchmarks/plan_tables.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results/plan.jsonl", ROOT / "docs/how_to/pods.md"
BEGIN, END = "<!-- tables: benchmarks/plan_tables.py -->\n", "<!-- end of tables -->\n"
STATES = ("parameters", "running_mean", "optimizer")


def gib(count: float) -> str:
    return f"{count / 2**30:.2f}"


def mesh(found: dict) -> str:
    return " × ".join(str(size) for size in found["mesh"].values())


def milliseconds(found: dict) -> str:
    return " / ".join(f"{1e3 * found[part]:.0f}" for part in ("compute", "memory", "communication"))


def row(*cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---|" + "---:|" * (columns - 1), *rows]) + "\n"


def memory(found: dict) -> list[str]:
    """States and activations of a chip."""
    bytes_of = found["bytes_per_chip"]
    return [gib(sum(bytes_of[name] for name in STATES)), gib(bytes_of["activations"])]


def times(found: dict) -> list[str]:
    """What bounds a step, the model's share of it, that of exchanges."""
    shares = [f"{found[name]:.0%}" for name in ("mfu", "communication_share")]
    return [milliseconds(found), *shares]


TIMES = "compute / memory / communication, ms | MFU ≤ | communication |"


def published(lines: list[dict], before: list[dict]) -> str:
    """Every published size on every slice, beside what bound it with attention by XLA."""
    rows = []
    for was in before:
        start = [was["config"].removeprefix("musicgen_"), was["topology"]]
        # Its share of the chip counted scores that the mask hides: times are what compares.
        end = [f"{1e3 * was['step_seconds']:.0f}, {was['bound']}"]
        key = was["config"], was["topology"]
        new = [x for x in lines if (x["config"], x["topology"]) == key]
        for found in new:
            total, limit = (found["bytes_per_chip"][name] for name in ("total", "limit"))
            here = [*start, mesh(found), found["remat"], f"{gib(total)} of {gib(limit)}"]
            cpu = f"{found['tool_cpu_seconds']:.0f}"
            if found["fits"] and found["mfu"] is not None:
                rows.append(row(*here, *memory(found), *times(found), *end, cpu))
            else:
                over = f"{gib(total - limit)} too many"
                rows.append(row(*here, over, *[""] * 4, *end, cpu))
        if not new:
            rows.append(row(*start, "not compiled again", *[""] * 7, *end, ""))
    head = "| size | slice | data × fsdp × tensor | recomputed | GiB a chip | states | "
    return table(head + "activations | " + TIMES + " before: ms ≥ | tool, s of CPU |", rows)


def scaling(lines: list[dict]) -> str:
    """One run on ever more chips."""
    rows = [
        row(found["chips"], mesh(found), found["batch"], *memory(found), *times(found))
        for found in lines
    ]
    head = "| chips | data × fsdp × tensor | batch | states, GiB | activations, GiB | "
    return table(head + TIMES, rows)


def main() -> None:
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]

    def of(name: str) -> list[dict]:
        return [line for line in lines if line["benchmark"] == name]

    parts = {"held": of("plan, batch held")}
    parts["grown"] = of("plan, three crops a chip")
    versions = " and ".join(sorted({line["versions"]["jax"] for line in lines}))
    commits = " and ".join(sorted({line["commit"] for line in lines}))
    made = (
        "MusicGen's published training, 192 crops of 30 s, attention by kernels; before, by XLA:"
        "\n\n"
        + published(of("plan"), of("plan, attention by XLA"))
        + "\nAttention by XLA, all its scores counted: small with 64 crops, parameters in as many "
        "pieces as there are chips up to 64:\n\n"
        + scaling(parts["held"])
        + "\nSmall with three crops for every chip, parameters whole:\n\n"
        + scaling(parts["grown"])
        + f"\nCompiled with JAX {versions} at commit {commits}; times are the chip's limits, none "
        "was run. Communication is its share of a step in which it overlaps with nothing.\n"
    )
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + made + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
