"""Token models evaluated: bits are those of scoring, distances know their floor, nothing is drawn
twice."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_folders
import soundfile
from small_lm import CONFIG, K, N
from small_musicgen import codes_of, small
from tiers import slow

from rvq_jax import metrics
from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate import agreement, distances, embeddings, heldout, tokens
from rvq_jax.evaluate.bits import clip_bits
from rvq_jax.evaluate.clips import choose, real_audio
from rvq_jax.evaluate.conditions import melodies
from rvq_jax.evaluate.intervals import Interval
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.tokens import evaluate_tokens
from rvq_jax.systems.musicgen import MusicGen

FRAMES, CLIPS = 48, 6
KEYS = ("C major", "A minor")
SETTINGS = GenerationSettings(clips=2, batch=2, top_k=0)


def code_set(model: MusicGen, lengths, **fields) -> CodeSet:
    """Random codes of a model's levels, with captions of the built-in corpus."""
    codes = [
        codes_of(model, 1, n, seed=i)[0] % model.config.codebook_size for i, n in enumerate(lengths)
    ]
    names = [f"song{i}" for i in range(len(codes))]
    captions = [f"a slow pad in {KEYS[i % 2]}, {80 + 10 * i} bpm" for i in range(len(codes))]
    made = CodeSet(codes, names, captions, [""] * len(codes), 100.0, model.config.codebook_size)
    return dataclasses.replace(made, **fields)


@pytest.fixture(scope="module")
def own() -> MusicGen:
    return small_folders.own()


@pytest.fixture(scope="module")
def rows(own) -> CodeSet:
    return code_set(own, [FRAMES] * CLIPS)


def records(model: MusicGen, codes: CodeSet) -> list[dict]:
    """Audio of as many samples as the codes stand for, but for a part of the last frame."""
    rng = np.random.default_rng(0)
    shapes = [(x.shape[1] * 10 - 3, model.channels) for x in codes.codes]
    audio = [(0.1 * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
    return [{"audio": x, "name": name} for x, name in zip(audio, codes.names, strict=True)]


@pytest.fixture(scope="module")
def evaluated(own, rows, tmp_path_factory) -> tuple:
    out = tmp_path_factory.mktemp("out")
    audio = records(own, rows)
    other = dataclasses.replace(own, params=jax.tree.map(lambda x: 0.5 * x, own.params))
    models = {"own": own, "other": other}
    return out, models, evaluate_tokens(models, rows, audio=audio, out=out, settings=SETTINGS)


def melody_fields(codes: int) -> dict:
    rng = np.random.default_rng(5)
    heard = [rng.integers(0, 12, 9).astype(np.uint8) for _ in range(codes)]
    return {"melodies": heard, "melody_bins": 12, "melody_rate": 25.0}


@pytest.mark.parametrize("kind", ["own", slow("melody"), slow("text"), slow("stereo")])
def test_bits_are_those_of_scoring_clip_by_clip(own, kind):
    """In windows: clips that are shorter than one, as long, and of several."""
    model = own if kind == "own" else small(kind)
    lengths = [3, 5, 10, 8, 5]
    codes = code_set(model, lengths)
    if kind == "melody":
        codes = dataclasses.replace(codes, **melody_fields(len(lengths)))
    found = clip_bits(model, codes, 5, batch=3)
    assert found.frames.tolist() == lengths and found.standard_error is None
    for i, clip in enumerate(codes.codes):
        want = np.zeros(model.config.levels)
        for begin in range(0, lengths[i], 5):
            piece = clip[None, :, begin : begin + 5]
            conditions = model.encode_conditions([codes.captions[i]])
            conditions |= melodies(model, codes, [(i, begin)], [piece.shape[2]])
            want += np.asarray(model.score(piece, conditions)).sum((0, 2))
        np.testing.assert_allclose(found.levels[i], want, rtol=1e-4)


@pytest.mark.slow
def test_a_model_is_scored_in_windows_of_its_own_length(own, rows):
    short = dataclasses.replace(own, config=dataclasses.replace(own.config, window=12))
    given, whole = clip_bits(own, rows, 12).levels, clip_bits(own, rows).levels
    np.testing.assert_allclose(clip_bits(short, rows).levels, given, rtol=1e-5)
    assert np.abs(whole - given).max() > 0.1


def test_results_hold_what_they_promise(evaluated, rows):
    out, models, results = evaluated
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["data"]["seconds"] == pytest.approx(CLIPS * FRAMES / 100)
    for row in results["models"]:
        found = clip_bits(models[row["name"]], rows)
        bits = row["bits_per_frame"]
        assert bits["mean"] == pytest.approx(found.levels.sum() / found.frames.sum())
        assert bits["low"] < bits["mean"] < bits["high"] and bits["count"] == CLIPS
        assert sum(x["mean"] for x in row["bits_by_level"]) == pytest.approx(bits["mean"])
        assert [x["embedding"] for x in row["frechet"]] == ["log-mel statistics", "codec latents"]
        for found in row["frechet"]:
            assert found["clips"] == 2 and found["distance"]["mean"] > 0
            assert found["floor"]["mean"] > 0 and found["codec"]["mean"] > 0
        assert [x["what"] for x in row["agreement"]] == list(agreement.QUESTIONS)
        assert row["real_time_factor"] > 0
    floors = [[x["floor"] for x in row["frechet"]] for row in results["models"]]
    assert floors[0] == floors[1]  # of the same real audio
    (pair,) = results["pairs"]
    means = [row["bits_per_frame"]["mean"] for row in results["models"]]
    assert pair["mean"] == pytest.approx(means[0] - means[1]) and pair["different"]
    for i, player in enumerate(results["players"]):
        files = [player["original"], *player["systems"].values()]
        assert [soundfile.info(out / file).frames for file in files] == [10 * FRAMES] * 3, i
    assert len(results["players"]) == 2


@pytest.mark.parametrize("like", ["floor", "codec"])
def test_a_model_like_real_audio_is_at_the_distance_of_real_audio(own, rows, monkeypatch, like):
    """And like the codec's, at the codec's, which is another; its music agrees as often as both."""
    audio = records(own, rows)

    def generate(model, heldout, chosen, settings, place):
        given = audio if like == "floor" else None
        return real_audio(model, heldout, chosen.other, chosen.frames, given), 1.0

    monkeypatch.setattr(tokens, "generate_clips", generate)
    (row,) = evaluate_tokens({"own": own}, rows, audio=audio, settings=SETTINGS)["models"]
    for found in row["frechet"]:
        assert found["distance"] == found[like]
        assert found["floor"] != found["codec"]
    same = "real" if like == "floor" else "codec"
    assert all(x["generated"] == x[same] for x in row["agreement"])


def test_what_was_generated_is_found_again(evaluated, rows, monkeypatch):
    """A file that is damaged or gone is made again, alone with its batch."""
    out, models, results = evaluated
    calls, generate = [], MusicGen.generate
    monkeypatch.setattr(
        MusicGen, "generate", lambda *args, **more: calls.append(0) or generate(*args, **more)
    )
    audio = records(models["own"], rows)
    again = evaluate_tokens(models, rows, audio=audio, out=out, settings=SETTINGS)
    assert again == results and not calls
    (out / "audio" / "1" / "2.flac").write_bytes(b"fLaC")
    again = evaluate_tokens(models, rows, audio=audio, out=out, settings=SETTINGS)
    assert again == results and len(calls) == 1
    other = dataclasses.replace(SETTINGS, seed=1)
    again = evaluate_tokens({"own": models["own"]}, rows, audio=audio, out=out, settings=other)
    assert again["models"][0]["frechet"] != results["models"][0]["frechet"] and len(calls) > 1


def test_without_a_folder_the_numbers_are_the_same(evaluated, rows):
    _, models, results = evaluated
    audio = records(models["own"], rows)
    found = evaluate_tokens({"own": models["own"]}, rows, audio=audio, settings=SETTINGS)
    mine, kept = found["models"][0], results["models"][0]
    for name in ("frechet", "agreement", "bits_per_frame"):
        assert mine[name] == kept[name]
    assert found["players"] == []


def test_a_model_without_a_codec_has_bits_alone(own, rows):
    alone = dataclasses.replace(own, codec=None)
    results = evaluate_tokens({"alone": alone}, rows)
    (row,) = results["models"]
    assert row["bits_per_frame"]["mean"] > 0
    assert (row["frechet"], row["agreement"], row["real_time_factor"]) == ([], None, None)


@pytest.mark.slow
def test_of_one_clip_there_is_no_floor_and_no_interval(own):
    """Nor agreement with a caption that says nothing which can be heard."""
    one = dataclasses.replace(code_set(own, [FRAMES]), captions=["drums"])
    (row,) = evaluate_tokens({"own": own}, one, settings=SETTINGS)["models"]
    assert row["bits_per_frame"]["low"] is None and row["agreement"] is None
    for found in row["frechet"]:
        assert found["distance"]["mean"] > 0 and found["distance"]["low"] is None
        assert found["floor"] is None and found["codec"] is None


@pytest.mark.parametrize("kind", [slow("melody"), slow("stereo"), slow("own")])
def test_other_kinds_of_models(own, kind):
    """One that follows melodies, one of two channels; one whose windows are shorter than clips."""
    pattern = "stereo_partial_delay" if kind == "stereo" else "delay"
    model = own if kind == "own" else small(kind, pattern)
    codes = code_set(model, [FRAMES] * 4)
    if kind == "melody":
        codes = dataclasses.replace(codes, **melody_fields(4))
    frames = {kind: 20} if kind == "own" else None
    audio = records(model, codes)
    results = evaluate_tokens({kind: model}, codes, audio=audio, frames=frames, settings=SETTINGS)
    assert all(x["distance"]["mean"] > 0 for x in results["models"][0]["frechet"])


def test_clips_of_one_recording_are_on_one_side(own):
    """As many on each, none twice, all of one length."""
    names = [f"{'abc'[i % 3]}#{i}" for i in range(12)]
    codes = code_set(own, [9, 20, 20, 20] * 3, names=names)
    chosen = choose(codes, 100, seed=0)
    assert len(chosen.reference) == len(chosen.other) == 3 and chosen.frames == 20
    sides = [{names[i][0] for i in side} for side in (chosen.reference, chosen.other)]
    assert not sides[0] & sides[1]
    assert all(codes.codes[i].shape[1] >= 20 for i in (*chosen.reference, *chosen.other))
    assert choose(codes, 100, seed=0, seconds=0.05).frames == 5
    assert len(choose(codes, 1, seed=0).other) == 1
    single = choose(code_set(own, [9]), 100, seed=0)
    assert single.asked.tolist() == [0] and not len(single.other)


def clips(rng, count: int, shift: float = 0.0, dims: int = 3) -> list[np.ndarray]:
    """Of vectors that are alike within a clip."""
    centres = shift + rng.normal(size=(count, 1, dims))
    return [*(centres + 0.3 * rng.normal(size=(count, 6, dims)))]


def test_a_distance_is_that_of_all_vectors_and_its_interval_of_clips():
    """Which holds what sets of this size have on the average, as often as it says or more."""
    rng = np.random.default_rng(0)
    draws = [(clips(rng, 12), clips(rng, 12, 1.0)) for _ in range(60)]
    whole = [metrics.frechet_distance(*map(np.concatenate, pair)) for pair in draws]
    found = [distances.distance(*pair) for pair in draws]
    np.testing.assert_allclose([x.mean for x in found], whole, rtol=1e-9)
    held = np.mean([x.low < np.mean(whole) < x.high for x in found])
    assert held > 0.88
    # Resampled, sets of one kind lie further apart than they do: none of it moves the interval.
    alike = [distances.distance(*(clips(rng, 8, dims=10) for _ in range(2))) for _ in range(3)]
    assert all(x.low <= x.mean <= x.high for x in alike)
    one = distances.distance(*([x[0]] for x in draws[0]))
    assert one.mean > 0 and np.isnan([one.low, one.high]).all()
    # As if vectors were apart, it would be too narrow.
    apart = [distances.distance(*([v[None] for v in np.concatenate(x)] for x in p)) for p in draws]
    assert np.mean([x.low < np.mean(whole) < x.high for x in apart]) < held


def test_fewer_features_than_a_tenth_of_the_vectors():
    """And what is nowhere in real audio is heard all the same."""
    rng = np.random.default_rng(1)
    flat = np.eye(20)[:2]  # real audio has two of twenty directions
    real, other = ([rng.normal(size=(10, 2)) @ flat for _ in range(4)] for _ in range(2))
    hum = [clip + 3 * np.eye(20)[7] for clip in other]
    a, b, c = distances.reduced([real, other, hum], 2)
    assert a[0].shape == (10, 4)
    near, far = (metrics.frechet_distance(*map(np.concatenate, (a, x))) for x in (b, c))
    assert far == pytest.approx(near + 9, abs=0.5)
    np.testing.assert_array_equal(
        distances.reduced([[x[:, :2] for x in real]], 1)[0][0], real[0][:, :2]
    )


def test_a_function_of_the_users_measures_too(own, rows, tmp_path):
    path = tmp_path / "loudness.py"
    path.write_text("def embed(audio_S, rate):\n    return [abs(audio_S).mean(), audio_S.std()]\n")
    given = embeddings.load_embedding(path)
    (row,) = evaluate_tokens({"own": own}, rows, settings=SETTINGS, user_embeddings=[given])[
        "models"
    ]
    assert row["frechet"][2]["embedding"] == "loudness" and row["frechet"][2]["features"] == 2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("def embed(audio_S, rate):\n    return 1 / 0\n", "fails on clip 0: ZeroDivisionError"),
        ("def embed(audio_S, rate):\n    return [float('nan')]\n", "NaN or infinite"),
        ("def embed(audio_S, rate):\n    return [[[1.0]]]\n", r"\(1, 1, 1\) is no vectors"),
        ("def embed(audio_S, rate):\n    return []\n", r"\(0,\) is no vectors"),
        ("def embed(a, rate):\n    return a[: 1 + (a[0] > 0)]\n", "1 and 2 features"),
        ("def embed(audio_S, rate):\n    raise SystemExit(3)\n", "SystemExit: 3"),
        ("embed = 3\n", "has no function embed"),
        ("import nowhere\n", "ModuleNotFoundError"),
    ],
)
def test_an_embedding_that_is_none(tmp_path, text, match):
    path = tmp_path / "mine.py"
    path.write_text(text)
    audio = np.stack([np.full((20, 1), x, np.float32) for x in (0.5, -0.5)])
    with pytest.raises(UserError, match=match):
        embeddings.features_of(embeddings.load_embedding(path), {"reference": audio}, {}, 1000)


def arrays(folder, **sets) -> None:
    for place, vectors in sets.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for i, array in enumerate(vectors):
            np.save(folder / place / f"{i}.npy", array)


def test_vectors_made_elsewhere(tmp_path):
    """Half of the real ones are the reference, the others the floor, as many as were generated."""
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(9, 5, 3)), rng.normal(size=(3, 3))
    arrays(tmp_path, real=real, generated=made)
    found = embeddings.features_of(embeddings.load_embedding(tmp_path), {}, {"own": None}, 1000)
    np.testing.assert_array_equal(found.real["reference"], real[:3])
    np.testing.assert_array_equal(found.real["floor"], real[3:6])
    np.testing.assert_array_equal(found.generated["own"], made[:, None])
    arrays(tmp_path, **{"generated/a": made, "generated/b": made})
    both = embeddings.load_embedding(tmp_path)
    assert [*embeddings.features_of(both, {}, {"a": 0, "b": 0}, 1000).generated] == ["a", "b"]
    with pytest.raises(UserError, match="no vectors of c"):
        embeddings.features_of(both, {}, {"a": 0, "c": 0}, 1000)
    (tmp_path / "generated" / "a" / "0.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="cannot be read as an array of vectors"):
        embeddings.load_embedding(tmp_path)
    with pytest.raises(UserError, match="no folders real/ and generated/"):
        embeddings.load_embedding(tmp_path / "real")
    with pytest.raises(UserError, match="is no embedding"):
        embeddings.load_embedding(tmp_path / "nowhere.py")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"codebook_size": N + 1}, f"{K} levels of {N + 1}, own {K} of {N}"),
        ({"codec": "00"}, "codes of another codec"),
        ({"frame_rate": 50.0}, "50 frames per second, the codec of own 100"),
        ({"codes": []}, "nothing to evaluate"),
    ],
)
def test_codes_that_are_not_the_models(own, rows, change, match):
    with pytest.raises(UserError, match=match):
        evaluate_tokens({"own": own}, dataclasses.replace(rows, **change))


def test_audio_that_is_not_that_of_the_codes(own, rows):
    audio = records(own, rows)
    for wrong in (audio[:-1], audio[::-1], [x | {"audio": x["audio"][:-20]} for x in audio]):
        with pytest.raises(UserError, match=r"make (the codes again|them again)"):
            evaluate_tokens({"own": own}, rows, audio=wrong, settings=SETTINGS)


def test_a_melody_model_needs_melodies():
    model = small("melody")
    with pytest.raises(UserError, match=r"own follows a melody: .* --melody 12"):
        evaluate_tokens({"own": model}, code_set(model, [5]))
    ends = dataclasses.replace(CONFIG, end=True)
    model = dataclasses.replace(small_folders.own(), config=ends)
    with pytest.raises(UserError, match="ends rows itself"):
        evaluate_tokens({"own": model}, code_set(model, [5]))


def test_pieces_are_found_from_paths(own, rows, tmp_path):
    """A run folder says how long its crops were; audio is encoded by the model's codec, once."""
    own.save(tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"lm": {}, "frames": 40}))
    for path in ("run", "run/model"):
        found = heldout.open_model(tmp_path / path)
        assert found.frames == 40 and found.model.pattern == own.pattern
    rows.save(tmp_path / "codes.npz")
    opened = heldout.open_heldout(tmp_path / "codes.npz", [own], tmp_path / "out")
    assert opened.audio is None and opened.codes.names == rows.names
    (tmp_path / "songs").mkdir()
    with pytest.raises(UserError, match="has no audio"):
        heldout.open_heldout(tmp_path / "songs", [own], tmp_path / "out")
    with pytest.raises(UserError, match="is not there"):
        heldout.open_heldout(tmp_path / "nowhere", [own], tmp_path / "out")
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = (0.1 * rng.normal(size=2000 - i)).astype(np.float32)
        soundfile.write(tmp_path / "songs" / f"song {i}.wav", noise, 1000)
    (tmp_path / "songs" / "damaged.wav").write_bytes(b"RIFF")
    opened = heldout.open_heldout(tmp_path / "songs", [own], tmp_path / "out")
    assert sorted(opened.codes.captions) == ["song 0", "song 1", "song 2"]  # all of them
    assert "damaged.wav" in str(opened.left_out) and len(opened.audio) == 3
    want = own.codec.encode(opened.audio[1]["audio"][None]).codes[0]
    np.testing.assert_array_equal(opened.codes.codes[1], want)
    again = heldout.open_heldout(tmp_path / "songs", [own], tmp_path / "out")
    assert again.codes.describe() == opened.codes.describe()
    with pytest.raises(UserError, match="no codec to encode it"):
        heldout.open_heldout(
            tmp_path / "songs", [dataclasses.replace(own, codec=None)], tmp_path / "out"
        )


def test_captions_say_what_can_be_heard():
    assert agreement.truth_of("a fast bright pluck in A minor, 120 bpm") == (120.0, 9, "minor")
    assert agreement.truth_of("something in C sharp major, 70 bpm") == (70.0, 1, "major")
    for caption in ("", "in A minor", "in H minor, 120 bpm", "in A minor, fast", "120 bpm"):
        assert agreement.truth_of(caption) is None


def test_undefined_numbers_are_null():
    found = Interval(1.5, np.nan, np.inf, 2, 1).as_json()
    assert found == {"mean": 1.5, "low": None, "high": None, "count": 2, "undefined": 1}
