"""Speech from text: spoken numbers by VALL-E and by SoundStorm, from a voice and words.

Both are trained on joined takes of six speakers, as codes of the built-in codec. Each says held-out
sequences of two to four digits, in the voice of another held-out clip of a speaker; of every
sequence two neighbours were never neighbours in training. What is finished is not done again.

Command:  python experiments/speech/digits.py --audio SPEECH --out runs/digits_audio
          rvq-jax data build runs/digits_audio --out runs/digits --codes builtin --semantic kmeans
          python experiments/speech/run.py --codes runs/digits
          and in an environment of its own, with resemblyzer and soundfile:
          python experiments/speech/similarity.py --audio runs/digits_audio
          then once more, for its column; and for the table of sentences, after the commands of
          sentences.py:
          python experiments/speech/run.py --codes runs/digits \\
              --sentences runs/allison_report runs/allison runs/sentences
Expect:   RESULTS.md
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import report
import systems
from digits import WORDS
from systems import LEVELS, SOUNDSTORM, STAGE, SYSTEMS, VALLE

from rvq_jax import builtin, files, machine
from rvq_jax.audio import io
from rvq_jax.data import builder
from rvq_jax.data.codes import CodeSet
from rvq_jax.evaluate.recognition import Recognizer, total, word_errors
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.speech import evaluate_speech
from rvq_jax.evaluate.spoken import recordings
from rvq_jax.study.codecs import builtin_codec
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.semantic import TOKENIZER
from rvq_jax.systems.semantic_tokenizer import SemanticTokenizer

HERE = Path(__file__).parent
CLIPS, REFERENCES = 60, 12  # that are said, and of each speaker's training
SPLIT = "test"  # of digits.py; how codes are sampled was chosen by the others
SAMPLING = {VALLE: {"temperature": 0.8}, SOUNDSTORM: {"temperature": 0.5}}


def prepare(source: Path, out: Path) -> None:
    """The first levels of a code cache and the codec of so many, in the study's folder.

    Args:
      source: folder that `rvq-jax data build --codes builtin --semantic kmeans` wrote.
      out: of the study; gets `data` and `codec`.
    """
    codec = builtin_codec(LEVELS)
    if not (out / "codec").exists():
        codec.save(out / "codec")
    fingerprint = codec.fingerprint().hex()
    (out / "data").mkdir(parents=True, exist_ok=True)
    for split in ("train", "heldout"):
        path = out / "data" / f"{split}.npz"
        if not path.exists():
            codes = CodeSet.load(source / f"{split}.npz")
            first = [codes_KF[:LEVELS] for codes_KF in codes.codes]
            dataclasses.replace(codes, codes=first, codec=fingerprint).save(path)
    tokenizer = SemanticTokenizer.load(source / TOKENIZER)
    tokenizer.save(out / "data" / TOKENIZER)


def networks(out: Path, seed: int, only: list[str]) -> dict:
    """The models of a seed by name, trained where they are not there yet.

    Args:
      out: of the study, prepared.
      seed: of the trainings.
      only: systems.

    Returns:
      The systems.
    """
    needed = [name for name in (VALLE, STAGE, SOUNDSTORM) if name in only]
    needed = [STAGE, *needed] if SOUNDSTORM in only else needed
    found = {}
    for name in needed:
        place = place_of(out, name, seed)
        is_new, began = not (place / "model").exists(), time.perf_counter()
        stage = place_of(out, STAGE, seed) / "model"
        train, codec = out / "data" / "train.npz", out / "codec"
        run = systems.run_of(name, seed)
        found[name] = systems.trained(place, train, name, run, codec, stage)
        if is_new:
            files.write_json(place / "took.json", {"seconds": time.perf_counter() - began})
    return {name: found[name] for name in only}


def place_of(out: Path, name: str, seed: int) -> Path:
    """Folder of a training."""
    return out / f"{name},updates={systems.UPDATES[name]},seed={seed}"


def judge(out: Path, source: Path, models: dict, seed: int, clips: int, split: str) -> dict:
    """What is heard of the systems of a seed, on held-out sequences of a split; kept in `out`."""
    codes = CodeSet.load(out / "data" / "heldout.npz")
    rows = [i for i, name in enumerate(codes.names) if name.startswith(split)]
    records = builder.open_split(source, "heldout")
    audio = [records[i] for i in rows]
    train = CodeSet.load(out / "data" / "train.npz")
    place = heard_place(out, models, seed, clips, split)
    if (place / "speech.json").is_file():
        return json.loads((place / "speech.json").read_text())
    heard = {}
    for name, model in models.items():
        settings = GenerationSettings(clips=clips, seed=seed, **SAMPLING[name])
        options = {"audio": audio, "train": train, "out": place / name, "settings": settings}
        heard[name] = evaluate_speech({name: model}, codes.rows(rows), **options)
    found = joined(heard)
    found["all_levels"] = through_all_levels(source, found)
    files.write_json(place / "speech.json", found)
    return found


def joined(heard: dict[str, dict]) -> dict:
    """What was heard of several systems on the same clips, each in a folder of its name, as of one
    evaluation of all of them."""
    for name, one in heard.items():
        for player in one["players"]:
            player["systems"] = {k: f"{name}/{path}" for k, path in player["systems"].items()}
    first, *others = heard.values()
    for other in others:
        first["systems"] += [system for system in other["systems"] if system["model"]]
        for player, more in zip(first["players"], other["players"], strict=True):
            if player["file"] != more["file"]:
                raise ValueError(f"{player['file']} and {more['file']} are not one clip")
            player["systems"] |= more["systems"]
    return first


def heard_place(out: Path, names: Iterable[str], seed: int, clips: int, split: str) -> Path:
    """Folder of what was heard of the systems of a seed."""
    return out / f"heard,{'+'.join(names)},split={split},clips={clips},seed={seed}"


def write_references(out: Path) -> None:
    """Training clips of every speaker through the codec, for similarity.py."""
    train, codec = CodeSet.load(out / "data" / "train.npz"), Codec.load(out / "codec")
    for speaker in sorted(set(train.labels)):
        rows = [i for i, label in enumerate(train.labels) if label == speaker][:REFERENCES]
        for i, audio_SC in enumerate(recordings(codec, train, rows, None)):
            path = out / "references" / speaker / f"{i}.flac"
            if not path.exists():
                io.write(path, audio_SC, codec.config.rate)


def through_all_levels(source: Path, found: dict) -> float:
    """Word accuracy of the recordings that were asked for, through the whole built-in codec."""
    codes, recognizer = CodeSet.load(source / "heldout.npz"), Recognizer(WORDS)
    codec = Codec.load(builtin.folder(builtin.WORD))
    rows = [codes.names.index(player["file"]) for player in found["players"]]
    audio = recordings(codec, codes, rows, None)
    heard = [recognizer.heard(audio_SC, codec.config.rate) for audio_SC in audio]
    said = [codes.captions[i] for i in rows]
    return total([word_errors(*pair) for pair in zip(said, heard, strict=True)]).accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=Path, required=True, help="what data build wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/speech"), help="run folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of trainings")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS, help="of systems")
    parser.add_argument("--train", action="store_true", help="train alone, judge nothing")
    parser.add_argument("--clips", type=int, default=CLIPS, help="sequences that are said")
    parser.add_argument("--sentences", type=Path, nargs=3, help="report, run, data of sentences")
    parser.add_argument("--split", choices=("valid", "test"), default=SPLIT, help="of held-out")
    arguments = parser.parse_args()
    began = time.perf_counter()
    os.nice(5)
    out = arguments.out
    prepare(arguments.codes, out)
    write_references(out)
    results = {"seeds": {}, "parameters": systems.parameters(), "updates": systems.UPDATES}
    results["sampling"] = SAMPLING
    for seed in arguments.seeds:
        models = networks(out, seed, arguments.only)
        if arguments.train:
            continue
        results["seeds"][seed] = judge(
            out, arguments.codes, models, seed, arguments.clips, arguments.split
        )
    if arguments.train or set(arguments.only) != set(SYSTEMS) or arguments.split != SPLIT:
        return  # the tables are of both systems, on what nothing was chosen by
    train = CodeSet.load(out / "data" / "train.npz")
    results |= {"train": train.describe(), "frame_rate": train.frame_rate, "took": {}}
    for name in systems.UPDATES:
        paths = [place_of(out, name, seed) / "took.json" for seed in arguments.seeds]
        there = [json.loads(path.read_text())["seconds"] for path in paths if path.exists()]
        results["took"][name] = there
    heard = {
        seed: heard_place(out, SYSTEMS, seed, arguments.clips, SPLIT) for seed in arguments.seeds
    }
    sentences = arguments.sentences and report.sentences_of(*arguments.sentences)
    report.write(HERE, heard, results | machine.provenance(began), sentences)


if __name__ == "__main__":
    main()
