"""The notebooks run from end to end at tiny sizes, and their files stay small and clean."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_folders
from small_musicgen import RATE

import rvq_jax as rj

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# What takes the place of the cell tagged `parameters`, name by name.
TINY = {
    "codec": {
        "AUDIO": None, "SECONDS": 1.0, "LEVELS": 3, "CODES": 8, "PICTURE": 32, "UPDATES": 2,
    },
    "patterns": {
        "MUSIC": None, "SONGS": 12, "SECONDS": 1.0, "PATTERNS": ("parallel", "delay"),
        "UPDATES": 2, "DIM": 16, "FRAMES": 20, "GENERATED": 0.5,
    },
    "musicgen": {
        "MODEL": "facebook_musicgen-small", "MUSIC": "MUSIC", "PROMPTS": ["a slow piano", "loud"],
        "SECONDS": 0.3, "PIECE": 0.1, "UPDATES": 2, "BATCH": 2, "FRAMES": 20, "RANK": 2,
        "OUT": "runs",
    },
}  # fmt: skip
LARGEST, LARGEST_IMAGE = 300_000, 60_000  # bytes
# Of the machine that a notebook was run on.
ABSOLUTE = re.compile(r"(?<![\w.:/])/(tmp|home|root|work|usr|Users|mnt|opt|var)/|\b[A-Z]:\\\\")
LAUNCH = "from nbclient.cli import NbClientApp; NbClientApp.launch_instance()"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def parameters(cells: list[dict]) -> dict:
    """The one cell that says how large all is."""
    (found,) = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    return found


def stand_ins(folder: Path) -> None:
    """What the reader of a notebook has beside it: a MusicGen of random weights, and music."""
    small_folders.published("text", folder / "words").save(folder / "facebook_musicgen-small")
    rows = ["file,caption"]
    for i in range(12):
        noise = 0.3 * np.random.default_rng(i).normal(size=(RATE, 1))
        rj.save_audio(folder / "MUSIC" / f"{i}.wav", noise, RATE)
        rows.append(f"{i}.wav,a slow piano")
    (folder / "MUSIC" / "metadata.csv").write_text("\n".join(rows))


def test_all_notebooks_are_tried():
    assert [path.stem for path in NOTEBOOKS] == sorted(TINY)


@each
def test_a_file_is_small_and_of_no_machine(path):
    text, cells = path.read_text(), code_cells(path)
    made = json.loads(text)
    assert len(text.encode()) <= LARGEST
    assert made["metadata"]["kernelspec"]["name"] == "python3"
    outputs = [output for cell in cells for output in cell["outputs"]]
    for output in outputs:
        image = output.get("data", {}).pop("image/png", "")
        assert len(base64.b64decode("".join(image))) <= LARGEST_IMAGE
    assert "error" not in [output["output_type"] for output in outputs]
    assert "<audio" not in json.dumps(outputs)
    assert all(set(cell["metadata"]) <= {"tags"} for cell in cells)
    said = json.dumps(outputs) + "".join("".join(cell["source"]) for cell in made["cells"])
    assert ABSOLUTE.search(said) is None


@each
def test_cells_compile_and_sizes_are_in_one_of_them(path):
    cells = code_cells(path)
    for cell in cells:
        compile("".join(cell["source"]), path.name, "exec")
    statements = ast.parse("".join(parameters(cells)["source"])).body
    assert {x.targets[0].id for x in statements} == set(TINY[path.stem])


def test_random_weights_leave_no_outputs():
    """What they make says nothing about the model that a reader has."""
    (path,) = [path for path in NOTEBOOKS if path.stem == "musicgen"]
    assert [cell["outputs"] for cell in code_cells(path) if cell["outputs"]] == []


@pytest.mark.slow
@each
def test_a_notebook_runs(path, tmp_path):
    """In a process of its own, as `jupyter execute` runs it; an exception in a cell ends it."""
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason="notebooks run with rvq_jax[docs]")
    made = json.loads(path.read_text())
    lines = [f"{name} = {value!r}" for name, value in TINY[path.stem].items()]
    parameters(made["cells"])["source"] = "\n".join(lines)
    place = tmp_path / path.name
    place.write_text(json.dumps(made))
    if path.stem == "musicgen":
        stand_ins(tmp_path)
    jupyter = {f"JUPYTER_{name}_DIR": str(tmp_path / "jupyter") for name in ("RUNTIME", "CONFIG")}
    env = os.environ | jupyter | {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, str(place)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
