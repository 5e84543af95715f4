"""Blind listening tests as single pages that can be mailed, and the key to what they hide."""

import base64
import hashlib
import hmac
import io
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rvq_jax.errors import READING
from rvq_jax.evaluate import stimuli
from rvq_jax.files import write_json, writing
from rvq_jax.opening import read_bytes

PAGE = Path(__file__).with_name("listening.html")
KEY = "listening.json"
KEY_BYTES = 8 << 20
CLIPS = 10
BYTES = 18 << 20  # of sounds in a page: a mail takes 25 MB, and text is a third longer
FEWEST = 3  # clips, also where they are longer than that
TRIALS = 36  # that a listener is given: half an hour


def write(folder: str | Path, results: dict) -> list[Path]:
    """Writes abx.html, mushra.html and their key, listening.json, into an evaluation's folder.

    The pages hold their sounds, name no system and send nothing anywhere: a listener saves a file
    of answers, which `answers.read` reads with the key. ABX: which of two sounds is the third?
    MUSHRA: after ITU-R BS.1534-3, each system from 0 to 100 beside an open and a hidden reference
    and a low-pass anchor. Written again of the same sounds they take the same answers.

    Args:
      folder: of the evaluation, which holds the files that results names.
      results: what results.json holds.

    Returns:
      The paths of the three files; none for token models and where there is no original.

    Raises:
      UserError: when a sound is missing or is not audio, or the folder cannot be written to.
    """
    folder = Path(folder)
    clips = [player for player in results["players"] if player["original"] is not None]
    if results["kind"] != "codec" or not clips or not results["systems"]:
        return []
    clips = clips[:CLIPS]
    systems = stimuli.chosen(results["systems"])
    names = [system["name"] for system in systems]
    pairs = stimuli.pairs(systems)
    loaded = list(_loaded(folder, clips, names))
    key = _key(folder, loaded, pairs)
    key["left_out"] = sorted(s["name"] for s in results["systems"] if s["name"] not in names)
    paths = [folder / "abx.html", folder / "mushra.html", folder / KEY]
    for path, data in zip(paths, (_abx(key, loaded), _mushra(key, loaded)), strict=False):
        text = PAGE.read_text(encoding="utf-8")
        # Within a script a "<" could end it.
        text = text.replace("{{data}}", json.dumps(data).replace("<", "\\u003c"))
        with writing(path) as target:
            target.write_text(text, encoding="utf-8")
    write_json(folder / KEY, key)
    return paths


def _loaded(folder: Path, clips: Sequence[dict], names: Sequence[str]) -> Iterator[dict]:
    """Clips with their sounds as flac, as many as a page has room for."""
    size = 0
    for count, clip in enumerate(clips):
        sounds, rate = stimuli.prepared(folder, clip, names)
        coded = {name: _flac(sound_SC, rate) for name, sound_SC in sounds.items()}
        # The reference is there twice.
        size += sum(map(len, coded.values())) + len(coded[stimuli.REFERENCE])
        if count >= FEWEST and size > BYTES:
            return
        digest = {n: hashlib.sha256(x_SC.tobytes()).hexdigest() for n, x_SC in sounds.items()}
        yield {"file": clip["file"], "rate": rate, "sounds": coded, "digest": digest}


def _key(folder: Path, clips: Sequence[dict], pairs: Sequence[tuple[str, str]]) -> dict:
    """What each id of the pages stands for; ids are those of before if the sounds are."""
    said = json.dumps([[clip["file"], clip["digest"]] for clip in clips] + [pairs])
    digest = hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()
    secret = _secret(folder / KEY, digest) or secrets.token_hex(16)

    def name(*words: str) -> str:
        text = json.dumps(words).encode(errors="surrogateescape")
        return hmac.new(secret.encode(), text, "sha256").hexdigest()[:12]

    key = {"evaluation": name("evaluation"), "secret": secret, "digest": digest}
    key |= {"clips": {}, "sounds": {}, "trials": {}}
    for number, clip in enumerate(clips):
        place = f"{number}"
        ids = {system: name("sound", place, system) for system in clip["sounds"]}
        key["clips"][name("clip", place)] = {
            "file": clip["file"],
            "reference": name("reference", place),
            "sounds": sorted(ids.values()),
        }
        key["sounds"] |= {value: system for system, value in ids.items()}
        for a, b in pairs:
            if a in ids and b in ids:
                trial = {"sounds": sorted((ids[a], ids[b])), "pair": [a, b]}
                key["trials"][name("trial", place, a, b)] = trial
    return key


def _secret(path: Path, digest: str) -> str | None:
    """That of a key which was made of the same sounds."""
    try:
        found = json.loads(read_bytes(path, KEY_BYTES))
        return str(found["secret"]) if found["digest"] == digest else None
    except READING:
        return None


def _abx(key: dict, clips: Sequence[dict]) -> dict:
    """What the page knows: trials by pair, in an order that says nothing, and sounds by id."""
    groups: dict[str, list] = {}
    for trial, said in sorted(key["trials"].items()):
        groups.setdefault(json.dumps(said["pair"]), []).append(
            {"id": trial, "sounds": said["sounds"]}
        )
    heard = {sound for trial in key["trials"].values() for sound in trial["sounds"]}
    audio = {x: data for x, data in _audio(key, clips).items() if x in heard}
    groups_sorted = sorted(groups.values(), key=lambda group: group[0]["id"])
    return _data("abx", key, clips) | {"groups": groups_sorted, "trials": TRIALS, "audio": audio}


def _mushra(key: dict, clips: Sequence[dict]) -> dict:
    items = [
        {"id": clip, "reference": said["reference"], "sounds": said["sounds"]}
        for clip, said in sorted(key["clips"].items())
    ]
    return _data("mushra", key, clips) | {"clips": items, "audio": _audio(key, clips)}


def _data(test: str, key: dict, clips: Sequence[dict]) -> dict:
    return {"test": test, "evaluation": key["evaluation"], "rate": clips[0]["rate"]}


def _audio(key: dict, clips: Sequence[dict]) -> dict[str, str]:
    """Sounds in base64 by id, ordered by it."""
    found = {}
    for said, clip in zip(key["clips"].values(), clips, strict=True):
        found[said["reference"]] = clip["sounds"][stimuli.REFERENCE]
        found |= {sound: clip["sounds"][key["sounds"][sound]] for sound in said["sounds"]}
    return {name: base64.b64encode(found[name]).decode() for name in sorted(found)}


def _flac(audio_SC: np.ndarray, rate: int) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, audio_SC, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
