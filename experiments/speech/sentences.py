"""Sentences of one voice: the English telephone prompts of the open corpus, with their words.

What is said in them is in the Debian package asterisk-core-sounds-en. Prompts of three words and
more are held out by a draw, none of whose texts is in training.

Command:  python experiments/codec/corpus.py --out runs/corpus --only speech
          python experiments/speech/sentences.py --corpus runs/corpus/speech
          rvq-jax data build runs/sentences_audio --out runs/sentences --codes builtin
          rvq-jax train configs/valle_tiny.py --data runs/sentences/train.npz --out runs/allison \\
              --codec builtin --loop.steps 800
          rvq-jax evaluate runs/allison --data runs/sentences --speech --out runs/allison_report
Needs:    a Debian machine (apt-get, dpkg-deb)
Time:     seconds; the training a quarter of an hour on two cores
"""

import argparse
import csv
import gzip
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from rvq_jax import files
from rvq_jax.errors import UserError
from rvq_jax.evaluate.recognition import spoken

PACKAGE, SOUNDS = "asterisk-core-sounds-en", "asterisk-core-sounds-en-g722"
DIGITS = "zero one two three four five six seven eight nine ten".split()
HELD_OUT = 40
LONGEST = 4.9  # seconds, that valle_tiny is trained on


def texts() -> dict[str, str]:
    """What is said in each prompt, by its name in the corpus; without those that are no speech."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["apt-get", "download", "-q", PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.deb"))
        if done.returncode or not found:
            raise UserError(f"{PACKAGE} cannot be had; try apt-get update")
        subprocess.run(["dpkg-deb", "-x", str(found[0]), folder], check=True)
        [path] = Path(folder).rglob("core-sounds-en.txt.gz")
        lines = gzip.decompress(path.read_bytes()).decode(errors="replace").splitlines()
    said = {}
    for line in lines:
        name, colon, text = line.partition(": ")
        words = [DIGITS[int(w)] if w.isdecimal() and int(w) < 11 else w for w in spoken(text)]
        if (
            colon
            and words
            and not re.search(r"[\[\]]", text)
            and not re.search(r"\d", "".join(words))
        ):
            said[name.replace("/", "_")] = " ".join(words)
    return said


def held_out(said: dict[str, str]) -> set[str]:
    """Names of prompts that are not trained on, by a draw."""
    long = sorted(name for name, text in said.items() if len(text.split()) >= 3)
    drawn = np.random.default_rng(0).permutation(long)[:HELD_OUT]
    return {str(name) for name in drawn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="its folder of speech")
    parser.add_argument("--out", type=Path, default=Path("runs/sentences_audio"))
    arguments = parser.parse_args()
    with (arguments.corpus / "metadata.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith(f"{SOUNDS}/")]
    said = texts()
    rows = [
        row for row in rows if Path(row["file"]).stem in said and float(row["seconds"]) <= LONGEST
    ]
    here = {Path(row["file"]).stem: said[Path(row["file"]).stem] for row in rows}
    test = held_out(here)
    texts_of_test = {here[name] for name in test}
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = []
    for row in rows:
        name = Path(row["file"]).stem
        if name not in test and here[name] in texts_of_test:
            continue
        shutil.copyfile(arguments.corpus / row["file"], arguments.out / f"{name}.flac")
        split = "test" if name in test else "train"
        table.append([f"{name}.flac", here[name], row["speaker"], split, row["speaker"]])
    with files.writing(arguments.out / "metadata.csv") as path, path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", "caption", "label", "split", "speaker"])
        out.writerows(table)
    print(f"{len(table)} prompts in {arguments.out}, {len(test)} of them held out")


if __name__ == "__main__":
    main()
