"""Listeners of an evaluation's pages: files of answers as the pages save them."""

import json
from collections.abc import Callable
from pathlib import Path


def key(folder: Path) -> dict:
    """What the pages of a folder hide."""
    return json.loads((folder / "listening.json").read_text())


def abx(folder: Path, right: Callable[[int], bool], listener: str = "0a", name: str = "") -> dict:
    """Answers to all trials, of which those by number that `right` says are right."""
    answers = []
    for i, (trial, said) in enumerate(key(folder)["trials"].items()):
        a, b = said["sounds"]
        answers.append({"trial": trial, "a": a, "x": a, "answer": a if right(i) else b})
    return _file(folder, "abx", listener, name, answers)


def mushra(
    folder: Path, score: Callable[[str, int], float], listener: str = "0b", name: str = ""
) -> dict:
    """Scores of all sounds of all clips: of a system's name and the clip's number."""
    hidden = key(folder)
    answers = [
        {"clip": clip, "scores": {x: score(hidden["sounds"][x], i) for x in said["sounds"]}}
        for i, (clip, said) in enumerate(hidden["clips"].items())
    ]
    return _file(folder, "mushra", listener, name, answers)


def saved(place: Path, *found) -> list[Path]:
    """Files of answers."""
    paths = [place / f"{i}.json" for i in range(len(found))]
    for path, each in zip(paths, found, strict=True):
        path.write_text(json.dumps(each))
    return paths


def _file(folder: Path, test: str, listener: str, name: str, answers: list) -> dict:
    evaluation = key(folder)["evaluation"]
    said = {"test": test, "evaluation": evaluation, "listener": listener, "name": name}
    return {**said, "began": "", "ended": "", "answers": answers}
