"""SoundStorm and MAGNeT evaluated beside MusicGens: bounds, semantic tokens, audio of their own."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_parallel as small
import soundfile
from command import run
from page_elements import Page
from tiers import slow, tried

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.evaluate import bits, folders, generations, heldout, tokens
from rvq_jax.evaluate.bits import SAMPLES, clip_bits
from rvq_jax.evaluate.clips import choose
from rvq_jax.evaluate.generations import Place, generate_clips
from rvq_jax.evaluate.settings import GenerationSettings
from rvq_jax.evaluate.tokens import evaluate_tokens
from rvq_jax.systems import generators
from rvq_jax.systems.decoding.masked import bound_codes
from rvq_jax.systems.magnet import MAGNeT
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.soundstorm import SoundStorm

MODELS = {"soundstorm": small.soundstorm, "magnet": small.magnet}
each = pytest.mark.parametrize("kind", tried(["soundstorm"], MODELS))
LENGTHS, WINDOW, BATCH = (7, 20, 13), 8, 4
SETTINGS = GenerationSettings(clips=2, batch=2)


def code_set(lengths=LENGTHS, **fields) -> CodeSet:
    """Random codes and semantic tokens; the first clips of a longer set are those of a shorter."""
    codes, semantics = [], []
    for i, n in enumerate(lengths):
        rng = np.random.default_rng(i)
        codes.append(rng.integers(0, small.N, (small.K, n)).astype(np.int32))
        semantics.append(rng.integers(0, small.TOKENS, -(-n // small.RATIO)).astype(np.int32))
    names = [f"song{i}" for i in range(len(codes))]
    captions = [("slow", "né", "a fast piano")[i % 3] for i in range(len(codes))]
    made = CodeSet(
        codes, names, captions, [""] * len(codes), 100.0, small.N,
        semantics=semantics, semantic_size=small.TOKENS, semantic_ratio=small.RATIO,
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


@pytest.fixture(scope="module")
def rows() -> CodeSet:
    return code_set()


def of_windows(found, size: int):
    """Each clip's windows: its index, the first place, and the part of `found` that is in it."""
    for i, whole in enumerate(found):
        for begin in range(0, whole.shape[-1], size):
            yield i, begin, whole[..., begin : begin + size]


@each
def test_bits_are_the_mean_of_samples_of_the_bound(rows, kind):
    """Of each window under what it is conditioned on, with masks by its clip and first frame."""
    model = MODELS[kind]()
    want, spread = np.zeros((len(rows), small.K)), np.zeros(len(rows))
    for i, begin, piece in of_windows(rows.codes, WINDOW):
        count = piece.shape[1]
        if kind == "soundstorm":
            tokens = rows.semantics[i][begin // small.RATIO :][: WINDOW // small.RATIO]
            tokens = np.pad(tokens, (0, WINDOW // small.RATIO - len(tokens)))
            conditions = model.conditions(tokens[None], WINDOW)
        else:
            conditions = model.encode_conditions([rows.captions[i]])
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(bits.SEED), i), begin)
        codes = np.pad(piece, ((0, 0), (0, WINDOW - count)))[None]
        program = model.config, model.params, codes, conditions, key[None], np.array([count])
        found = bound_codes(*program, samples=SAMPLES)
        want[i] += np.asarray(found).mean((0, 1))
        spread[i] += np.asarray(found)[:, 0].var(0, ddof=1).sum() / SAMPLES
    found = clip_bits(model, rows, WINDOW, BATCH)
    assert found.frames.tolist() == [*LENGTHS]
    np.testing.assert_allclose(found.levels, want, rtol=1e-4)
    np.testing.assert_allclose(found.variance, spread, rtol=1e-3)


@pytest.mark.parametrize("kind", ["soundstorm", slow("magnet")])
def test_batches_and_padding_change_no_bits(kind):
    """Nor do other clips: those of a set whose longest is longer are padded more."""
    model = MODELS[kind]()
    short, more = code_set((7, WINDOW)), code_set((7, WINDOW, 20))
    found = clip_bits(model, short, WINDOW, BATCH)
    for other in (clip_bits(model, short, WINDOW, 1), clip_bits(model, more, None, BATCH)):
        np.testing.assert_allclose(other.levels[:2], found.levels, rtol=1e-4)
        if kind == "soundstorm":
            np.testing.assert_allclose(other.semantic[:2], found.semantic, rtol=1e-4)


def test_windows_begin_with_a_semantic_token(rows):
    """As crops do in training."""
    odd, whole = (clip_bits(small.soundstorm(), rows, n, BATCH) for n in (WINDOW + 2, WINDOW))
    np.testing.assert_array_equal(odd.levels, whole.levels)


def test_the_standard_error_is_that_of_other_masks(rows, monkeypatch):
    found = []
    for seed in range(40):
        monkeypatch.setattr(bits, "SEED", seed)
        found.append(clip_bits(small.magnet(), rows, WINDOW, BATCH))
    means = [one.per_frame @ one.frames / one.frames.sum() for one in found]
    error = np.sqrt(np.mean([one.standard_error**2 for one in found]))
    assert 0.7 < np.std(means) / error < 1.4


@pytest.mark.parametrize("window", [2, slow(None)])
def test_semantic_tokens_cost_what_their_model_says(rows, window):
    """With the end of each clip, once, also where windows are shorter."""
    model = small.soundstorm()
    lm = model.semantic.lm
    lm = dataclasses.replace(lm, config=dataclasses.replace(lm.config, window=window))
    semantic = dataclasses.replace(model.semantic, lm=lm)
    found = clip_bits(dataclasses.replace(model, semantic=semantic), rows, WINDOW, BATCH)
    size = window or 5  # the longest clip has so many
    want = np.zeros(len(rows))
    for i, begin, piece in of_windows(rows.semantics, size):
        inside = np.arange(size + 1) < len(piece)
        tokens = np.pad(piece, (0, size + 1 - len(piece)))
        cost = semantic.score(tokens[None], [rows.captions[i]], inside[None])[0]
        ends = begin + len(piece) == len(rows.semantics[i])
        want[i] += np.asarray(cost)[: len(piece) + ends].sum()
    np.testing.assert_allclose(found.semantic, want, rtol=1e-4)
    total = (found.levels.sum(1) + want) / LENGTHS
    np.testing.assert_allclose(found.per_frame, total, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "say"),
    [
        ({"semantics": None}, r"reads 5 semantic tokens, .* have none; build them with --semantic"),
        ({"semantic_size": 6}, "have 6, one of every 4 frames; build them with --semantic"),
        ({"semantic_ratio": 2}, "have 5, one of every 2 frames; build them with --semantic"),
        ({"codebook_size": 12}, "3 levels of 12, storm 3 of 11"),
        ({"codec": "00"}, "codes of another codec"),
    ],
)
def test_codes_that_soundstorm_cannot_score(rows, fields, say):
    with pytest.raises(UserError, match=say):
        evaluate_tokens({"storm": small.soundstorm()}, dataclasses.replace(rows, **fields))


def test_what_cannot_be_compared_is_refused(rows):
    bare = dataclasses.replace(small.soundstorm(), semantic=None)
    with pytest.raises(UserError, match="storm has no semantic model"):
        evaluate_tokens({"storm": bare}, rows)
    short = small.magnet(window=10)
    asked = dataclasses.replace(SETTINGS, seconds=0.12)
    with pytest.raises(UserError, match=r"net makes 0\.1 s at most, and clips of 0\.12 s"):
        evaluate_tokens({"net": short}, rows, settings=asked)


def test_clips_are_as_long_as_every_model_can_make(rows, monkeypatch):
    storm, asked = small.soundstorm(), []
    lm = dataclasses.replace(small.SEMANTIC, window=3)
    short = dataclasses.replace(storm.semantic.lm, config=lm)
    short = dataclasses.replace(storm.semantic, lm=short)
    storm = dataclasses.replace(storm, semantic=short)
    models = {"delay": small.autoregressive(), "net": small.magnet(window=10), "storm": storm}
    assert [generations.most_frames(x) for x in models.values()] == [None, 10, 3 * small.RATIO]
    monkeypatch.setattr(tokens, "choose", lambda *args: asked.append(choose(*args)) or asked[-1])
    monkeypatch.setattr(tokens, "clip_bits", lambda *_: 1 / 0)  # which come after it
    for several in (models, {"delay": models["delay"]}):
        with pytest.raises(ZeroDivisionError):
            evaluate_tokens(several, rows, settings=SETTINGS)
    assert [x.frames for x in asked] == [10, 13]


@pytest.mark.parametrize("cls", [MusicGen, SoundStorm, MAGNeT])
def test_what_is_not_asked_for_is_as_the_kind_was_published(rows, monkeypatch, cls):
    seen = []

    def generate(model, conditions, seconds, keys, **options):
        seen.append(options)
        return np.zeros((len(keys), round(seconds * small.RATE), 1), np.float32)

    monkeypatch.setattr(cls, "generate", generate)
    model = {MusicGen: small.autoregressive, SoundStorm: small.soundstorm, MAGNeT: small.magnet}
    asked = dataclasses.replace(SETTINGS, top_k=0, guidance_scale=2.0)
    for settings in (SETTINGS, asked):
        generate_clips(model[cls](), rows, choose(rows, 2, 0), settings)
    assert seen[0] == {} and seen[-1] == {"top_k": 0, "guidance_scale": 2.0}


def test_soundstorm_makes_its_own_tokens(rows, tmp_path, monkeypatch):
    """Those of the clip change nothing; another semantic model's audio is not taken for its own."""
    model, chosen, place = small.soundstorm(), choose(rows, 2, 0), Place(tmp_path, 1)
    audio, _ = generate_clips(model, rows, chosen, SETTINGS, place)
    others = [(x + 1) % small.TOKENS for x in rows.semantics]
    again, _ = generate_clips(model, dataclasses.replace(rows, semantics=others), chosen, SETTINGS)
    np.testing.assert_array_equal(again, audio)
    assert np.ptp(audio) > 0
    calls, generate = [], SoundStorm.generate
    monkeypatch.setattr(
        SoundStorm, "generate", lambda *args, **more: calls.append(0) or generate(*args, **more)
    )
    kept, _ = generate_clips(model, rows, chosen, SETTINGS, place)
    np.testing.assert_array_equal(kept, audio)
    assert not calls
    other = dataclasses.replace(model, semantic=small.semantic(ends=False))
    generate_clips(other, rows, chosen, SETTINGS, place)
    assert calls


@each
def test_a_folder_of_it_is_one_of_token_models(tmp_path, kind):
    MODELS[kind]().save(tmp_path / "run" / "model")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"lm": {}, "frames": 40}))
    opened = heldout.open_model(tmp_path / "run")
    assert type(opened.model) is type(MODELS[kind]()) and opened.frames == 40
    assert not folders.are_codecs([tmp_path / "run"])


def test_forwards_are_counted_as_they_are_run():
    """Of MusicGen the steps of its pattern, of windows too; iterations; and semantic tokens."""
    assert generators.forwards(small.autoregressive(), 20) == 20 + small.K - 1
    assert generators.forwards(small.magnet(), 20) == 20 + 10 + 10
    assert generators.forwards(small.soundstorm(), 21) == 6 + 16 + 1 + 1
    long = dataclasses.replace(
        small.autoregressive(), config=dataclasses.replace(small.AR, window=100)
    )
    step = generations.stride(long, 160)
    # The second window shares 40 frames, too few to be read at once, the next ones 120 with it.
    assert step == 60 and generators.forwards(long, 160, step) == 102 + 102
    assert generators.forwards(long, 120, 20) == 102 + 1 + 102 - 64


@pytest.mark.slow
def test_the_command_measures_all_three(capsys, tmp_path):
    """On a folder of audio, whose semantic tokens are those of SoundStorm's own tokenizer."""
    models = {"delay": small.autoregressive, "storm": small.soundstorm, "net": small.magnet}
    for name, model in models.items():
        model().save(tmp_path / name)
    rng = np.random.default_rng(0)
    (tmp_path / "songs").mkdir()
    for i in range(4):
        noise = (0.1 * rng.normal(size=300 + 100 * i)).astype(np.float32)
        soundfile.write(tmp_path / "songs" / f"{i}.wav", noise, small.RATE)
    words = "--data", tmp_path / "songs", "--out", tmp_path / "out", "--generate.clips", 2
    code, said, lines = run(capsys, "evaluate", *(tmp_path / x for x in models), *words)
    assert (code, lines) == (0, []), lines
    done = json.loads((tmp_path / "out" / "results.json").read_text())
    codes = CodeSet.load(tmp_path / "out" / "heldout.npz")
    assert (codes.semantic_size, codes.semantic_ratio) == (small.TOKENS, small.RATIO)
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    frames = round(100 * done["data"]["generated"]["seconds"])
    for row, (name, model) in zip(done["models"], models.items(), strict=True):
        kind = {"delay": "delay", "storm": "soundstorm", "net": "magnet"}[name]
        assert (row["name"], row["pattern"]) == (name, kind)
        assert row["bits"] == ("exact" if name == "delay" else "bound")
        found = clip_bits(model(), codes)
        mean = row["bits_per_frame"]["mean"]
        assert mean == pytest.approx(found.per_frame @ found.frames / found.frames.sum())
        parts = [x["mean"] for x in row["bits_by_level"]]
        if name == "storm":
            parts.append(row["bits_of_semantic_tokens"]["mean"])
        assert sum(parts) == pytest.approx(mean)
        assert row["forwards"] == generators.forwards(model(), frames)
        assert row["real_time_factor"] > 0 and len(row["frechet"]) == 2
        assert f"{row['forwards']}" in page.texts
        if name != "delay":
            assert any(text.startswith(f"≤ {mean:.1f}"[:4]) for text in page.texts)
    assert len(done["pairs"]) == 3
    assert "≤" in said and any("is a bound" in text for text in page.texts)
