"""Kills runs at random moments, many times, and compares what they end with.

Command:  python tests/faults/kill.py
Time:     about half an hour on two cores
Expect:   every row of kill.md: equal bits on one mesh, less than 1e-5 apart across meshes
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from faults.processes import (
    Mesh,
    check_same,
    ends,
    furthest,
    kill,
    left,
    prepare,
    small_run,
    start,
)
from tqdm import tqdm

from rvq_jax import files, machine

HERE = Path(__file__).parent
# Eight devices in two processes or one, or one device, split in every way.
MESHES = [
    Mesh(2, 4, 2, 2),
    Mesh(1, 8, 4, 2),
    Mesh(2, 4, 1, 1),
    Mesh(1, 1, 1, 1),
    Mesh(2, 4, 8, 1),
    Mesh(1, 8, 2, 2),
    Mesh(2, 4, 2, 1),
]


def trial(folder: Path, name: str, kills: int, moves: bool, steps: int, seed: int) -> dict:
    """A run killed so many times and then left alone, beside one never killed."""
    run, rng = small_run(steps, 3), random.Random(seed)
    prepare(folder, run)
    if not (folder / "whole").exists():
        assert ends(start(folder, "whole"), 600) == [0, 0]
    deaths = []
    for i in tqdm(range(kills), desc=name, unit="kill"):
        mesh = MESHES[i % len(MESHES)] if moves else MESHES[0]
        deaths.append(kill(rng, folder, name, mesh, longest=4.0))
    assert set(ends(start(folder, name, MESHES[0]), 600)) == {0}
    got, want = left(folder / name, run), left(folder / "whole", run)
    if not moves:
        check_same(got, want)
    return {"apart": furthest(got, want), "equal_bits": got.bits == want.bits, "deaths": deaths}


def table(found: dict[str, dict]) -> str:
    """The results as lines of a table."""
    lines = [
        "| restarted on | kills | of one process alone | during a save | before a first update | "
        "others ended within, s | largest difference |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, result in found.items():
        deaths = result["deaths"]
        alone = [d for d in deaths if d["alone"]]
        apart = "0, every bit equal" if result["equal_bits"] else f"{result['apart']:.1e}"
        slow = max((d["others_end_seconds"] for d in alone), default=0.0)
        early = sum(d["updates"][0] == d["updates"][1] for d in deaths)
        saving = sum(d["saving"] for d in deaths)
        lines.append(
            f"| {name} | {len(deaths)} | {len(alone)} | {saving} | {early} | {slow} | {apart} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="on the mesh that it began on")
    parser.add_argument("--moves", type=int, default=20, help="on another mesh each time")
    parser.add_argument("--steps", type=int, default=240, help="updates of a run")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        found = {
            "the same mesh": trial(
                Path(place), "same", asked.kills, False, asked.steps, asked.seed
            ),
            "another mesh": trial(
                Path(place), "moved", asked.moves, True, asked.steps, asked.seed + 1
            ),
        }
    stated = machine.provenance(began)
    head = (
        "# Killed runs\n\nTwo processes of four devices train a small token model and save every "
        f"third of {asked.steps} updates; each row is one run, killed by SIGKILL again and again, "
        "and compared with a run never killed: the state, the data's position, the log. Written "
        "by `tests/faults/kill.py`.\n\n"
    )
    files.write_json(HERE / "kill.json", {"runs": found, **stated})
    text = head + table(found) + f"\n\n{machine.sentence(stated)}\n"
    (HERE / "kill.md").write_text(text)
    print(text, json.dumps(asked.__dict__))


if __name__ == "__main__":
    main()
