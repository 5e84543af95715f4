"""What listeners answered, read from the files that the listening pages save."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rvq_jax.errors import UserError, clipped, printable, reading, shown
from rvq_jax.evaluate.intervals import Interval, interval
from rvq_jax.evaluate.listening import KEY, KEY_BYTES
from rvq_jax.evaluate.stimuli import REFERENCE
from rvq_jax.opening import read_bytes

BYTES = 4 << 20  # of a file of answers, which has tens of kilobytes
NAME = 80  # letters of a listener's name
# Post-screening of ITU-R BS.1534-3, 4.1.2: who gives the hidden reference less, and how often.
LEAST, OFTEN = 90, 0.15


def read(paths: Sequence[str | Path], folder: str | Path) -> dict:
    """Reads answer files of any number of listeners, and counts them by system.

    A file that is not one of this evaluation, or has an answer that cannot be, is not counted, nor
    is one of answers that another has given already; nor are MUSHRA scores of a listener who gave
    the hidden reference less than 90 in more than 15 % of the clips (ITU-R BS.1534-3, 4.1.2). All
    are named with the reason.

    Args:
      paths: files that abx.html or mushra.html saved, in any order.
      folder: of the evaluation, with its listening.json.

    Returns:
      "abx": for each pair its names a and b, how many of its trials were right, p of so many by
      guessing (exact binomial, one-sided) and of how many listeners. "mushra": for each system,
      best first, its mean score, its 95 % interval over listeners or over clips, whichever is
      wider (None where there are not two of either), and the count of scores. "excluded": the
      listener or file, and why.

    Raises:
      UserError: when listening.json is missing or damaged, or no file can be counted.
    """
    key = _key(Path(folder))
    kept, excluded = [], []
    given: dict[tuple[str, str], str] = {}
    for path in paths:
        name = os.path.basename(os.fspath(path))
        try:
            found = _checked(path, key)
        except UserError as error:
            excluded.append({"listener": name, "why": f"{error}"})
            continue
        who = found["name"] or name
        session = (found["test"], found["listener"])
        if session in given:
            why = f"{name} has the answers of {given[session]} again, which are counted once"
        elif found["test"] == "mushra" and (missed := _missed(found, key)) > OFTEN:
            why = (
                f"gave the hidden reference less than {LEAST} in {100 * missed:.0f} % of the "
                f"clips, more than the {100 * OFTEN:.0f} % of ITU-R BS.1534-3"
            )
        else:
            why = None
            kept.append(found)
        given.setdefault(session, name)
        if why is not None:
            excluded.append({"listener": who, "why": why})
    if not kept and excluded:
        first = excluded[0]
        raise UserError(f"no answers can be counted; {first['listener']}: {first['why']}")
    abx = [found for found in kept if found["test"] == "abx"]
    mushra = [found for found in kept if found["test"] == "mushra"]
    return {"abx": _pairs(abx, key), "mushra": _scores(mushra, key), "excluded": excluded}


def _key(folder: Path) -> dict:
    """listening.json, of the types that are read of it."""
    path = folder / KEY
    with reading(path, "the key of listening pages", "evaluate again, then ask listeners again"):
        key = json.loads(read_bytes(path, KEY_BYTES))
        _check_names(key["evaluation"], *key["sounds"].values())
        for clip in key["clips"].values():
            if not set(clip["sounds"]) <= set(key["sounds"]):
                raise ValueError("a clip has sounds that it does not name")
        for trial in key["trials"].values():
            _check_names(*trial["pair"], *trial["sounds"])
            if len(trial["pair"]) != 2 or len(set(trial["sounds"])) != 2:
                raise ValueError("a trial has not two sounds")
    return key


def _check_names(*names) -> None:
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name is no text")


def _checked(path: str | Path, key: dict) -> dict:
    """A file of answers, all of them of this evaluation and none twice."""
    with reading(path, "answers of a listening page", "ask the listener for the file again"):
        found = json.loads(read_bytes(path, BYTES))
        test, listener, name = found["test"], found["listener"], found["name"]
        _check_names(test, listener, name, found["evaluation"])
        if test not in ("abx", "mushra"):
            raise ValueError(f"there is no test {shown(test)}")
        if found["evaluation"] != key["evaluation"]:
            raise ValueError("it is of another evaluation")
        check = _check_trial if test == "abx" else _check_clip
        places = [check(answer, key) for answer in found["answers"]]
        if not places or len(set(places)) < len(places):
            raise ValueError("it has no answers" if not places else "it answers a trial twice")
        name = clipped(printable(name), NAME)
        return {"test": test, "listener": listener, "name": name, "answers": found["answers"]}


def _check_trial(answer: dict, key: dict) -> str:
    trial, sounds = answer["trial"], (answer["x"], answer["answer"])
    _check_names(trial, *sounds)
    if trial not in key["trials"]:
        raise ValueError("it names a trial that is not there")
    if not set(sounds) <= set(key["trials"][trial]["sounds"]):
        raise ValueError("it names a sound that is not of its trial")
    return trial


def _check_clip(answer: dict, key: dict) -> str:
    clip, scores = answer["clip"], answer["scores"]
    _check_names(clip)
    if clip not in key["clips"]:
        raise ValueError("it names a clip that is not there")
    if set(scores) != set(key["clips"][clip]["sounds"]):
        raise ValueError("it has no score of a sound, or one of another clip's")
    for score in scores.values():
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not number or not 0 <= score <= 100:
            raise ValueError(f"a score must be a number in 0..100, not {shown(score)}")
    return clip


def _missed(found: dict, key: dict) -> float:
    """The share of clips in which the hidden reference got less than it has to."""
    scores = [
        score
        for answer in found["answers"]
        for sound, score in answer["scores"].items()
        if key["sounds"][sound] == REFERENCE
    ]
    return float(np.mean([score < LEAST for score in scores])) if scores else 0.0


def _pairs(files: Sequence[dict], key: dict) -> list[dict]:
    from scipy import stats

    right: dict[tuple[str, str], list[bool]] = {}
    listeners: dict[tuple[str, str], set[str]] = {}
    for found in files:
        for answer in found["answers"]:
            pair = tuple(key["trials"][answer["trial"]]["pair"])
            right.setdefault(pair, []).append(answer["x"] == answer["answer"])
            listeners.setdefault(pair, set()).add(found["listener"])
    return [
        {
            "a": pair[0],
            "b": pair[1],
            "right": sum(hits),
            "trials": len(hits),
            "p": float(stats.binomtest(sum(hits), len(hits), 0.5, alternative="greater").pvalue),
            "listeners": len(listeners[pair]),
        }
        for pair, hits in right.items()
    ]


def _scores(files: Sequence[dict], key: dict) -> list[dict]:
    rows: dict[str, list[tuple[str, str, float]]] = {}
    for found in files:
        for answer in found["answers"]:
            for sound, score in answer["scores"].items():
                row = (found["listener"], answer["clip"], float(score))
                rows.setdefault(key["sounds"][sound], []).append(row)
    made = [
        {"system": "hidden reference" if system == REFERENCE else system} | _mean(scores)
        for system, scores in rows.items()
    ]
    return sorted(made, key=lambda row: -row["mean"])


def _mean(scores: Sequence[tuple[str, str, float]]) -> dict:
    """Scores of one listener are alike, and so are those of one clip: a score is not one sample.

    The interval over means of listeners holds for these clips and other listeners, that over means
    of clips for these listeners and other clips; the wider of the two is given.
    """
    spans = [_over(scores, column) for column in (0, 1)]
    known = [span for span in spans if np.isfinite(span.high - span.low)]
    widest = max(known, key=lambda span: span.high - span.low, default=None)
    low, high = (None, None) if widest is None else (widest.low, widest.high)
    mean = float(np.mean([score for _, _, score in scores]))
    return {"mean": mean, "low": low, "high": high, "count": len(scores)}


def _over(scores: Sequence[tuple[str, str, float]], column: int) -> Interval:
    groups: dict[str, list[float]] = {}
    for row in scores:
        groups.setdefault(row[column], []).append(row[2])
    means, counts = zip(*((np.mean(x), len(x)) for x in groups.values()), strict=True)
    return interval(np.array(means), np.array(counts))
