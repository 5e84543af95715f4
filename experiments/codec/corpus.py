"""An open corpus of speech and music: Debian packages by name, whole sources of them held out.

Five languages of telephone prompts (G.722 at 16 kHz, stored as FLAC) and the music of three games
and a synthesizer (their own files, untouched); beside them a folder of one's own. What a package
says of licence and author goes into each row. Captions of prompts are the names of their files,
which say what is spoken, in English whatever the language: they are no transcripts. Left out are
prompts without a voice, which are one recording in every language, and `loop_amen`, copied from a
commercial one. A package that cannot be had is left out, and the others are done; one that is done
is not done again. OUT holds, for speech and for music, a folder with metadata.csv as
`rvq-jax data build` reads it; its split test is held out for good (see heldout.py).

Command:  python experiments/codec/corpus.py --out runs/corpus [--audio FOLDER] [--pieces]
Needs:    a Debian machine (apt-get, dpkg-deb) and pip install 'rvq_jax[metrics]' for G.722
Time:     two to seven minutes on two cores, and 380 MB of downloads
Expect:   CORPUS.md: two hours of speech, six of music
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import heldout
import pieces
import store
import summary
from sources import PACKAGES, Package
from tqdm import tqdm

from rvq_jax import files
from rvq_jax.data import folder
from rvq_jax.data.table import FILES
from rvq_jax.errors import UserError, reason_of

HERE = Path(__file__).parent
KINDS = ("speech", "music", "sounds")  # the last is of one's own folder alone
COLUMNS = ("file", "caption", "label", "split", "speaker", "licence", "source", "work")
COLUMNS += ("seconds", "rate", "channels", "pcm", "bytes")
MADE = ("*.flac", "*.ogg", "*.opus", "package.json")  # what a package's folder holds
VALID = 16  # of the works that are not held out, one in so many is for validation


def fetch(package: Package, place: Path) -> Path:
    """The package's file in a folder; apt downloads what is not there, whole and checked.

    Raises UserError if the package is not to be had.
    """
    place.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["apt-get", "-q", "download", package.name], cwd=place, capture_output=True, text=True
        )
    except OSError:
        raise UserError("apt-get is not there; run this on a Debian machine") from None
    found = sorted(place.glob(f"{package.name}_*.deb"), key=os.path.getmtime)
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise UserError(f"{lines[-1] if lines else 'apt-get failed'}; try apt-get update")
    return found[-1]


def convert(package: Package, deb: Path, out: Path) -> None:
    """A package's audio and what is known of it, in a folder that appears whole or not at all."""
    version = _dpkg("-f", str(deb), "Version").strip()
    for stale in out.parent.glob(f"{files.TEMPORARY}*"):  # what a killed run leaves
        shutil.rmtree(stale)
    with files.writing_folder(out, ours=MADE) as target:
        with tempfile.TemporaryDirectory(dir=target) as unpacked:
            _dpkg("-x", str(deb), unpacked)
            found = sorted(p for p in Path(unpacked).glob(package.files) if p.stat().st_size)
            rows = []
            for path in tqdm(found, desc=package.name, unit="file"):
                said = package.describe(Path(unpacked), path)
                if said.name not in package.left_out:
                    rows.append(_place(path, target / said.name) | _words(package, said))
        source = f"{package.name} {version}"
        more = {"source": source, "origin": package.name}
        rows = [{**row, "file": f"{out.name}/{row['file']}", **more} for row in rows]
        files.write_json(target / "package.json", {"version": version, "rows": rows})


def _words(package: Package, said) -> dict:
    named = {"caption": said.caption, "label": said.label, "speaker": said.speaker}
    return named | {"licence": said.licence or package.licence, "work": said.work}


def _place(path: Path, target: Path) -> dict:
    """Puts one file there, in its own coding unless that is G.722, and measures it."""
    if path.suffix == ".g722":
        store.write_flac(target, *store.read_g722(path))
    else:
        link(path, target)
    return measure(target)


def measure(path: Path) -> dict:
    """Name, seconds, rate, channels and hashes of an audio file (see `store.digest`)."""
    pcm_SC, rate = store.read(path)
    return {
        "file": path.name,
        "seconds": round(len(pcm_SC) / rate, 3),
        "rate": rate,
        "channels": pcm_SC.shape[1],
        "size": path.stat().st_size,
        "pcm": store.digest(pcm_SC, rate),
        "bytes": store.file_digest(path),
    }


def link(path: Path, target: Path) -> None:
    """The same bytes at another place, without room for two where the disk allows it."""
    with files.writing(target) as beside:
        try:
            os.link(path.resolve(), beside)
        except OSError:
            shutil.copyfile(path, beside)


def own(source: Path, out: Path) -> tuple[list[dict], list[str]]:
    """Rows of a folder of one's own below `out`/own, and a line for each file that is left out."""
    rows, left_out, said = [], [], stated(source / "metadata.csv")
    for clip in tqdm(folder.scan(source), desc=str(source), unit="file"):
        more, target = said.get(clip.name, {}), out / "own" / clip.name
        try:
            link(clip.path, target)
            row = measure(target) | {"file": f"own/{clip.name}", "caption": clip.caption}
        except UserError as error:
            target.unlink(missing_ok=True)
            left_out.append(f"left out: {clip.name}: {reason_of(error, target)}")
            continue
        row |= {"label": clip.label, "split": clip.split, "work": clip.name, "origin": "own"}
        row |= {"licence": more.get("licence") or more.get("license") or ""}
        rows.append(row | {name: more.get(name) or "" for name in ("speaker", "source")})
    return rows, left_out


def stated(table: Path) -> dict[str, dict]:
    """All that a metadata.csv says, by file, its columns in small letters."""
    found = {}
    for row in store.read_table(table) if table.is_file() else ():
        lower = {f"{name}".strip().lower(): value for name, value in row.items()}
        name = next((lower[column] for column in FILES if column in lower), "")
        found[os.path.normpath(name)] = lower
    return found


def split_of(row: dict, listed: set[str]) -> str:
    """Where a row belongs: what is held out, by its source or its hash in a list, is test.

    Else where it is stated; of works for which nothing is, one in `VALID` is for validation.
    """
    if heldout.is_held_out(row) or row["pcm"] in listed:
        return "test"
    if row.get("split"):
        return row["split"]
    number = int(hashlib.sha256(row["work"].encode()).hexdigest(), 16)
    return "train" if number % VALID else "valid"


def without_copies(rows: list[dict], seen: set[str]) -> Iterator[dict]:
    """Rows whose samples are new: the packages and one's own folder may share files."""
    for row in rows:
        if row["pcm"] not in seen:
            seen.add(row["pcm"])
            yield row


def check_room(out: Path, packages: list[Package], audio: Path | None) -> None:
    """Says how much the corpus takes, and raises UserError if there is not so much.

    One's own folder takes nothing on the disk it is on.
    """
    lacking = [p for p in packages if not (out / p.kind / p.name / "package.json").is_file()]
    need = sum(package.megabytes for package in lacking)
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if audio and audio.stat().st_dev != place.stat().st_dev:
        need += sum(p.stat().st_size for p in audio.rglob("*") if p.is_file()) // 10**6
    free = shutil.disk_usage(place).free / 1e6
    print(f"{out}: {need} MB for {len(lacking)} packages to be made, of {free:.0f} MB free")
    if need > free:
        raise UserError(f"{out} needs {need} MB and has {free:.0f}; choose another --out")


def make(out: Path, kinds: list[str], audio: Path | None) -> tuple[dict, list[str]]:
    """The corpus in a folder; its rows by kind, and a line for each thing that is left out."""
    packages = [package for package in PACKAGES if package.kind in kinds]
    check_room(out, packages, audio)
    rows: dict[str, list[dict]] = {kind: [] for kind in kinds}
    left_out = []
    for package in packages:
        place = out / package.kind / package.name
        try:
            if not (place / "package.json").is_file():
                convert(package, fetch(package, out / "packages"), place)
        except UserError as error:
            left_out.append(f"left out: {package.name}: {reason_of(error, place)}")
            continue
        rows[package.kind] += json.loads((place / "package.json").read_text())["rows"]
    for kind in kinds if audio else ():
        if (audio / kind).is_dir():
            mine, lost = own(audio / kind, out / kind)
            rows[kind] += mine
            left_out += lost
    seen, listed = set(), heldout.hashes()
    for kind in kinds:
        rows[kind] = list(without_copies(rows[kind], seen))
        for row in rows[kind]:
            row["split"] = split_of(row, listed)
        if rows[kind]:
            store.write_table(out / kind / "metadata.csv", rows[kind], COLUMNS)
    # All kinds as one folder, to train on.
    every = [{**row, "file": f"{kind}/{row['file']}"} for kind in kinds for row in rows[kind]]
    if every:
        store.write_table(out / "metadata.csv", every, COLUMNS)
    return rows, left_out


def _dpkg(*words: str) -> str:
    try:
        done = subprocess.run(["dpkg-deb", *words], capture_output=True, text=True)
    except OSError:
        raise UserError("dpkg-deb is not there; run this on a Debian machine") from None
    if done.returncode:
        raise UserError(f"{done.stderr.strip()}; delete the package's file, and it comes anew")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/corpus"), help="the corpus")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of audio")
    parser.add_argument(
        "--audio", type=Path, help="a folder of your own with folders speech, music or sounds"
    )
    parser.add_argument(
        "--pieces", action="store_true", help="the held-out pieces too, in OUT/heldout"
    )
    parser.add_argument(
        "--freeze", action="store_true", help="write heldout.json and CORPUS.md beside this file"
    )
    arguments = parser.parse_args()
    if arguments.audio and not any((arguments.audio / kind).is_dir() for kind in KINDS):
        raise UserError(f"{arguments.audio} has no folder {', '.join(KINDS)}; name one that has")
    began = time.perf_counter()
    rows, left_out = make(arguments.out, list(arguments.only), arguments.audio)
    cut = []
    if arguments.pieces or arguments.freeze:
        for kind in rows:
            cut += pieces.write(arguments.out, kind, rows[kind])
    if arguments.freeze:
        heldout.freeze(rows, cut)
    for line in heldout.differences(rows, cut):
        print(line)
    text = summary.text(rows, cut, left_out, began)
    for place in [arguments.out, *[HERE] * arguments.freeze]:
        with files.writing(place / "CORPUS.md") as path:
            path.write_text(text)
    print(text)
    if left_out:
        raise UserError("; ".join(left_out) + "; the others are done")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
