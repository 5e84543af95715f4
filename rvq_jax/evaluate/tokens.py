"""How good token models are: bits, what they generate beside real audio, speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rvq_jax.audio import io
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate import agreement, distances, embeddings
from rvq_jax.evaluate.bits import SAMPLES, ClipBits, check_codes, clip_bits
from rvq_jax.evaluate.clips import Chosen, choose, real_audio
from rvq_jax.evaluate.embeddings import Embedding, Vectors
from rvq_jax.evaluate.generations import (
    Place,
    generate_clips,
    most_frames,
    stride,
    within,
)
from rvq_jax.evaluate.intervals import Interval, interval, pairs
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.systems.generators import Generator, forwards, kind
from rvq_jax.train.codes import check_codec, check_whole
from rvq_jax.typing import Audio

PLAYERS = 8  # clips that can be heard


def evaluate_tokens(
    models: Mapping[str, Generator],
    heldout: CodeSet,
    *,
    audio: Sequence[dict] | None = None,
    frames: Mapping[str, int] | None = None,
    user_embeddings: Sequence[Embedding | Vectors] = (),
    out: str | Path | None = None,
    source: str = "held-out codes",
    settings: GenerationSettings | None = None,
) -> dict:
    """Evaluates token models on the same held-out clips.

    Bits are of all clips, exact or a bound (see `bits.clip_bits`). Half of the clips at most are
    the real audio that everything is compared with. Models generate audio for the captions of as
    many others, whose own audio is at the distance called floor: that of a model which cannot be
    told from real. Called codec is the distance of that audio as the codec decodes it, beyond which
    no model over its codes can be expected.

    Args:
      models: by name; those without a codec are scored and generate nothing.
      heldout: held-out codes.
      audio: records of their audio `[S, C]`, in the same order; None for audio decoded from the
        codes.
      frames: by name, of the crops that a model was trained on, where its config.window does not
        say it.
      user_embeddings: to measure distances in, beside statistics of log-mel and codec latents.
      out: folder that keeps what is generated, where another call finds it; None keeps nothing.
      source: what the held-out clips are called.
      settings: how many clips are generated, and how.

    Returns:
      What results.json of token models holds, but for the command and the machine.

    Raises:
      UserError: held-out codes, audio or embeddings that do not fit the models, or each other.
    """
    settings, frames = settings or GenerationSettings(), dict(frames or {})
    heard = _check(models, heldout, audio, source)
    heard = {name: within(model, frames.get(name)) for name, model in heard.items()}
    chosen = _chosen(heard, heldout, settings) if heard else None
    bits = {name: clip_bits(model, heldout, frames.get(name)) for name, model in models.items()}
    per_frame = {name: found.per_frame for name, found in bits.items()}
    results = {
        "kind": "tokens",
        "data": {
            "source": source,
            "clips": len(heldout),
            "seconds": sum(codes.shape[1] for codes in heldout.codes) / heldout.frame_rate,
            "real": "decoded" if audio is None else "recorded",
            "generated": None,
        },
        "models": [_row(name, model, bits[name]) for name, model in models.items()],
        "pairs": pairs("bits_per_frame", per_frame, next(iter(bits.values())).frames),
        "players": [],
    }
    if chosen is None:
        return results
    seconds = chosen.frames / heldout.frame_rate
    results["data"]["generated"] = {"clips": len(chosen.asked), "seconds": seconds}
    rows = {row["name"]: row for row in results["models"]}
    places = {
        name: None if out is None else Place(Path(out), i) for i, name in enumerate(models, 1)
    }
    generated = {}
    for name, model in heard.items():
        rows[name]["forwards"] = forwards(model, chosen.frames, stride(model, chosen.frames))
        made = generate_clips(model, heldout, chosen, settings, places[name])
        generated[name], rows[name]["real_time_factor"] = made
    first = next(iter(heard.values()))
    real = _real(first, heldout, audio, chosen)
    built_in = [embeddings.log_mel(), embeddings.codec_latents(first.codec)]
    for embedding in [*built_in, *user_embeddings]:
        features = embeddings.features_of(embedding, real, generated, first.codec.config.rate)
        for name, found in _distances(features, settings.seed).items():
            rows[name]["frechet"].append(found)
    captions = [heldout.captions[i] for i in chosen.asked]
    shares = _agreement(captions, real, generated, first.codec.config.rate)
    for name, found in shares.items():
        rows[name]["agreement"] = found
    if out is not None:
        names = [heldout.names[i] for i in chosen.asked]
        places = {name: places[name] for name in heard}
        results["players"] = _players(Path(out), names, captions, real["asked"], first, places)
    return results


def _check(
    models: Mapping[str, Generator], heldout: CodeSet, audio: Sequence[dict] | None, source: str
) -> dict[str, Generator]:
    """The models that can be heard; raises UserError for what does not fit."""
    if not models or not len(heldout):
        raise UserError("there is nothing to evaluate; give a model, and a held-out clip")
    if audio is not None and len(audio) != len(heldout):
        raise UserError(
            f"{source} has {len(heldout)} clips of codes and {len(audio)} of audio; make the codes "
            "again"
        )
    heard = {name: model for name, model in models.items() if model.codec is not None}
    for name, model in models.items():
        check_codes(model, heldout, name)
        if model.codec is None:
            continue
        check_whole(model.codec)
        check_codec(heldout, model.codec, source)
        rate = model.codec.config.frame_rate
        if abs(rate - heldout.frame_rate) > 1e-6 * rate:
            raise UserError(
                f"{source} has {heldout.frame_rate:g} frames per second, the codec of {name} "
                f"{rate:g}; give codes of that codec"
            )
    sounds = {(model.codec.config.rate, model.channels) for model in heard.values()}
    if len(sounds) > 1:
        raise UserError("models of different sampling rates or channels; evaluate them apart")
    return heard


def _chosen(
    heard: Mapping[str, Generator], heldout: CodeSet, settings: GenerationSettings
) -> Chosen:
    """Clips of a length that every model makes; raises UserError where a longer one is asked."""
    most = {name: most_frames(model) for name, model in heard.items()}
    most = {name: frames for name, frames in most.items() if frames is not None}
    seconds = settings.seconds
    if seconds is None and most:
        seconds = min(most.values()) / heldout.frame_rate
    found = choose(heldout, settings.clips, settings.seed, seconds)
    for name, frames in most.items():
        if found.frames > frames:
            longest = frames / heldout.frame_rate
            raise UserError(
                f"{name} makes {longest:.3g} s at most, and clips of {settings.seconds:g} s are "
                "asked for; give fewer --generate.seconds"
            )
    return found


def _row(name: str, model: Generator, bits: ClipBits) -> dict:
    """What is known of a model before it generates anything."""

    def mean(bits_M: np.ndarray | None) -> dict | None:
        """Bits per frame of what clips' bits are of."""
        return None if bits_M is None else interval(bits_M / bits.frames, bits.frames).as_json()

    bound = bits.standard_error is not None
    return {
        "name": name,
        "pattern": kind(model),
        "levels": model.config.levels,
        "bits": "bound" if bound else "exact",
        "samples": SAMPLES if bound else None,
        "standard_error": bits.standard_error,
        "bits_per_frame": interval(bits.per_frame, bits.frames).as_json(),
        "bits_by_level": [mean(level_M) for level_M in bits.levels.T],
        "bits_of_semantic_tokens": mean(bits.semantic),
        "frechet": [],
        "agreement": None,
        "forwards": None,
        "real_time_factor": None,
    }


def _real(
    model: Generator, heldout: CodeSet, audio: Sequence[dict] | None, chosen: Chosen
) -> dict[str, Audio]:
    """Real audio by what it is for."""

    def of(rows: np.ndarray, records: Sequence[dict] | None = audio) -> Audio:
        return real_audio(model, heldout, rows, chosen.frames, records)

    found = {"reference": of(chosen.reference), "asked": of(chosen.asked)}
    if len(chosen.other):
        found["floor"] = found["asked"]
        if audio is not None:
            found["codec"] = of(chosen.other, None)
    return found


def _distances(features: embeddings.Features, seed: int) -> dict[str, dict]:
    """The distance of each model's audio from the reference, beside those of real audio."""
    own = {name: clips for name, clips in features.real.items() if name != "asked"}
    real = [name for name in ("reference", "floor") if name in own]
    every = [*(own[name] for name in real), *features.generated.values()]
    every += [own["codec"]] if "codec" in own else []
    reference, *others = distances.reduced(every, len(real))
    found = [distances.distance(reference, clips, seed).as_json() for clips in others]
    floor = found.pop(0) if "floor" in own else None
    codec = found.pop() if "codec" in own else None
    return {
        name: {
            "embedding": features.name,
            "distance": measured,
            "floor": floor,
            "codec": codec,
            "clips": measured["count"],
            "features": reference[0].shape[1],
        }
        for name, measured in zip(features.generated, found, strict=True)
    }


def _agreement(
    captions: list[str], real: dict[str, Audio], generated: dict[str, Audio], rate: int
) -> dict[str, list[dict]]:
    """How far each model's audio is what its captions say, beside real audio, as it is and as the
    codec decodes it; nothing where captions say nothing that can be heard."""
    truths = [agreement.truth_of(caption) for caption in captions]
    rows = [i for i, truth in enumerate(truths) if truth is not None]
    if not rows:
        return {}

    def shares(audio: Audio) -> dict[str, Interval]:
        return agreement.agreement(agreement.answers(audio[rows], rate, [truths[i] for i in rows]))

    own = shares(real["asked"])
    decoded = shares(real["codec"]) if "codec" in real else {}
    return {
        name: [
            {
                "what": what,
                "generated": share.as_json(),
                "real": own[what].as_json(),
                "codec": decoded[what].as_json() if decoded else None,
            }
            for what, share in shares(audio).items()
        ]
        for name, audio in generated.items()
    }


def _players(
    out: Path,
    names: list[str],
    captions: list[str],
    real: Audio,
    model: Generator,
    places: dict[str, Place],
) -> list[dict]:
    """Players of the first clips: real audio, which is written, beside every model's."""
    players = []
    for i in range(min(PLAYERS, len(names))):
        original = f"audio/{i}/original.flac"
        io.write(out / original, real[i], model.codec.config.rate)
        systems = {name: place.file(i) for name, place in places.items()}
        players.append(
            {"file": names[i], "caption": captions[i], "original": original, "systems": systems}
        )
    return players
