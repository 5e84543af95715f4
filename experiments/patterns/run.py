"""Which interleaving pattern, at what cost: the quickstart's study, three seeds, longer training.

Short training favours parallel: its one step is about one frame, while a step of delay is about K
frames, and coarse_first has to learn to look F steps back. Twice the quickstart's updates let the
patterns show what they can express, not only how fast they learn.

Command:  python experiments/patterns/run.py; --draw for the chart alone
Time:     about half an hour on two cores
Expect:   flatten the fewest bits per frame, parallel and coarse_first the most (RESULTS.md)
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from rvq_jax import files
from rvq_jax.evaluate import plots
from rvq_jax.study import StudyConfig, report, study
from rvq_jax.study.plots import bits_against_steps
from rvq_jax.train.loop import LoopConfig

HERE = Path(__file__).parent


def sweep() -> Iterator[tuple[str, dict]]:
    """One study per corpus: the run's name, and what differs from the defaults."""
    loop = LoopConfig(steps=2000, checkpoint_every=1000)
    model = dataclasses.replace(StudyConfig().model, loop=loop)
    yield "corpus=built-in", {"seeds": (0, 1, 2), "train_codec": True, "model": model}


def draw(name: str) -> None:
    """The chart that README shows, from the numbers that are kept."""
    results = json.loads((HERE / f"{name}.json").read_text())
    with files.writing(HERE / f"{name}.svg") as path:
        chart = plots.standalone(bits_against_steps(results["patterns"]))
        path.write_text(chart + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/patterns"), help="run folder")
    parser.add_argument("--draw", action="store_true", help="the charts alone, of what is kept")
    arguments = parser.parse_args()
    if arguments.draw:
        for name, _ in sweep():
            draw(name)
        return
    parts = ["# Patterns", ""]
    for name, overrides in sweep():
        config = StudyConfig(**overrides)
        results = study(arguments.out / name, None, config, "python experiments/patterns/run.py")
        for bulky in ("samples", "curves", "code_counts"):
            del results[bulky]
        files.write_json(HERE / f"{name}.json", results)
        draw(name)
        body = report.markdown(results).replace("# Interleaving patterns", f"## {name}", 1)
        parts.append(body.replace("\n## ", "\n### ").replace(f"### {name}", f"## {name}"))
    with files.writing(HERE / "RESULTS.md") as path:
        path.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
