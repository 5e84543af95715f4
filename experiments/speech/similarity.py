"""Whose voice it is: speech beside six speakers, by the encoder of resemblyzer.

Every speaker is the mean embedding of training clips, as they were recorded, and through the codec,
which colours all voices alike; a clip is of the speaker whose embedding is nearest. The encoder
needs torch, so it has an environment of its own.

Command:  pip install resemblyzer soundfile
          python experiments/speech/similarity.py --heard runs/speech --audio runs/digits_audio
Expect:   similarity.json beside each speech.json that run.py wrote
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import soundfile
from resemblyzer import VoiceEncoder, preprocess_wav

CLIPS = 12  # of training, for each speaker
NAMES = "nearest", "own", "other"
LEFT_OUT = "voice", "nearest training clip"  # recordings of the speaker, of which there is no doubt


def embedding(encoder: VoiceEncoder, path: Path) -> np.ndarray | None:
    """Of a clip, of length 1; None of one that has no speech."""
    audio, rate = soundfile.read(path, dtype="float32")
    if not len(audio) or not np.abs(audio).max():
        return None
    speech = preprocess_wav(audio, source_sr=rate)
    return encoder.embed_utterance(speech) if len(speech) else None


def recorded(audio: Path) -> dict[str, list[Path]]:
    """Training clips of each speaker."""
    paths: dict[str, list[Path]] = {}
    with (audio / "metadata.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "train":
                paths.setdefault(row["speaker"], []).append(audio / row["file"])
    return paths


def decoded(out: Path) -> dict[str, list[Path]]:
    """The same through the codec, as run.py wrote them."""
    folders = sorted((out / "references").iterdir())
    return {folder.name: sorted(folder.glob("*.flac")) for folder in folders}


def speakers(encoder: VoiceEncoder, paths: dict[str, list[Path]]) -> dict[str, np.ndarray]:
    """The mean embedding of each speaker's first clips."""
    found = {}
    for name, own in sorted(paths.items()):
        mean = np.mean([embedding(encoder, path) for path in own[:CLIPS]], axis=0)
        found[name] = mean / np.linalg.norm(mean)
    return found


def judged(encoder: VoiceEncoder, place: Path, known: dict[str, dict]) -> dict:
    """Of each system the share of clips that are nearest to whose voice was asked for, and the mean
    cosine to that speaker and to the nearest other one, for each kind of references."""
    players = json.loads((place / "speech.json").read_text())["players"]
    found: dict[str, dict[str, list]] = {}
    for player in players:
        for system, path in player["systems"].items():
            if system in LEFT_OUT:
                continue
            heard = embedding(encoder, place / path)
            for kind, references in known.items():
                row = (0.0, 0.0, 0.0)
                if heard is not None:
                    cosines = {name: float(heard @ one) for name, one in references.items()}
                    own, other = cosines.pop(player["label"]), max(cosines.values())
                    row = float(own > other), own, other
                found.setdefault(system, {}).setdefault(kind, []).append(row)
    return {
        system: {
            kind: dict(zip(NAMES, np.mean(rows, axis=0).round(4).tolist(), strict=True))
            for kind, rows in kinds.items()
        }
        for system, kinds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heard", type=Path, default=Path("runs/speech"), help="of run.py")
    parser.add_argument("--audio", type=Path, required=True, help="of digits.py")
    arguments = parser.parse_args()
    encoder = VoiceEncoder("cpu", verbose=False)
    paths = {"recorded": recorded(arguments.audio), "decoded": decoded(arguments.heard)}
    known = {kind: speakers(encoder, each) for kind, each in paths.items()}
    for path in sorted(arguments.heard.glob("heard*/speech.json")):
        done = path.with_name("similarity.json")
        if done.exists() and done.stat().st_mtime > path.stat().st_mtime:
            continue
        found = judged(encoder, path.parent, known)
        done.write_text(json.dumps(found, indent=1) + "\n")
        print(path.parent, json.dumps(found))


if __name__ == "__main__":
    main()
