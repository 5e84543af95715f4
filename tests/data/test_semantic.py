"""Semantic tokens lie where their audio does, whoever made them, and crops of codes keep theirs."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from rvq_jax.data import loader, semantic
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.semantic import open_tokens
from rvq_jax.errors import UserError
from rvq_jax.systems.semantic_tokenizer import (
    SemanticTokenizer,
    cached_tokenizer,
    fit_tokenizer,
)

RATE, HOP, TONES = 1000, 50, (0.05, 0.12, 0.21, 0.33)  # of the rate


class Melodies:
    """Records that are tones of whole tokens' lengths, and which they are."""

    rate = RATE

    def __init__(self, count: int = 6):
        rng = np.random.default_rng(0)
        self.notes = [rng.integers(0, len(TONES), n) for n in rng.integers(10, 60, count)]

    def __len__(self):
        return len(self.notes)

    def __getitem__(self, index):
        phases = np.repeat(np.array(TONES)[self.notes[index]], HOP).cumsum()
        audio_S = 0.5 * np.sin(2 * np.pi * phases).astype(np.float32)
        return {"audio": audio_S[:, None], "name": f"a/{index}.wav"}


SOURCE = Melodies()


def test_a_token_is_what_sounds_in_its_part_of_the_clip():
    """Inside of tones each token is one tone's alone, and so of that part and not of the next."""
    tokenizer = fit_tokenizer(jax.random.key(0), SOURCE, 24, RATE / HOP)
    pairs = set()
    for notes, record in zip(SOURCE.notes, map(SOURCE.__getitem__, range(6)), strict=True):
        tokens = tokenizer.encode(record["audio"])
        assert tokens.dtype == np.int32 and tokens.shape == notes.shape
        inner = np.zeros(len(notes), bool)
        inner[1:-1] = (notes[1:-1] == notes[:-2]) & (notes[1:-1] == notes[2:])
        pairs |= set(zip(notes[inner].tolist(), tokens[inner].tolist(), strict=True))
    assert {note for note, _ in pairs} == set(range(len(TONES)))
    assert len(pairs) == len({token for _, token in pairs})


def test_what_follows_does_not_change_a_token():
    """The end of a clip is padded with silence: of as many samples as there are, so many tokens."""
    tokenizer = fit_tokenizer(jax.random.key(0), SOURCE, 4, RATE / HOP)
    audio_SC = SOURCE[0]["audio"]
    for samples in (1, HOP - 1, HOP, HOP + 1, len(audio_SC)):
        tokens = tokenizer.encode(audio_SC[:samples])
        assert len(tokens) == -(-samples // HOP)
        silent = np.concatenate([audio_SC[:samples], np.zeros((RATE, 1), np.float32)])
        np.testing.assert_array_equal(tokenizer.encode(silent)[: len(tokens)], tokens)


def test_a_tokenizer_is_read_as_it_was_written(tmp_path):
    tokenizer = cached_tokenizer(tmp_path / "t.npz", SOURCE, 4, RATE / HOP)
    again = SemanticTokenizer.load(tmp_path / "t.npz")
    np.testing.assert_array_equal(again.vectors, tokenizer.vectors)
    assert (again.rate, again.frame_rate, again.size) == (RATE, RATE / HOP, 4)
    for size, rate in ((5, RATE / HOP), (4, 10.0)):
        with pytest.raises(UserError, match="choose another --out"):
            cached_tokenizer(tmp_path / "t.npz", SOURCE, size, rate)
    with pytest.raises(UserError, match="need as many frames"):
        fit_tokenizer(jax.random.key(0), SOURCE, 10_000, RATE / HOP)


def spoilt(**arrays) -> dict:
    whole = {"vectors": np.zeros((4, 64), np.float32), "rate": 1000, "frame_rate": 20.0}
    return whole | arrays


@pytest.mark.parametrize(
    "arrays",
    [
        spoilt(vectors=np.zeros((4, 3), np.float32)),
        spoilt(vectors=np.full((4, 64), np.nan, np.float32)),
        spoilt(vectors=np.zeros((0, 64), np.float32)),
        spoilt(rate=0),
        spoilt(rate=1.5),
        spoilt(frame_rate=-1.0),
        spoilt(frame_rate=np.nan),
        {"rate": 1000},
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UserError, match=r"t\.npz"):
        SemanticTokenizer.load(tmp_path / "t.npz")


def folder_of(place: Path, tokens: list, **said) -> semantic.TokenFolder:
    for index, array in enumerate(tokens):
        path = place / f"a/{index}.wav.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    (place / "semantic.json").write_text(json.dumps({"size": 4, "frame_rate": RATE / HOP} | said))
    return open_tokens(place)


@pytest.mark.parametrize("more", [-2, 0, 2])
def test_tokens_made_elsewhere_are_fitted_to_their_audio(tmp_path, more):
    notes = SOURCE.notes[0]
    given = np.resize(notes, len(notes) + more).astype(np.uint16)
    found = folder_of(tmp_path, [given]).of(SOURCE[0], RATE)
    want = np.append(notes[: len(given)], [given[-1]] * max(0, -more))
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    ("tokens", "said", "say"),
    [
        (lambda notes: notes[:-3], {}, "its audio is"),
        (lambda notes: notes + 1, {}, r"not in \[0, 4\)"),
        (lambda notes: notes - 1, {}, r"not in \[0, 4\)"),
        (lambda notes: notes * 1.0, {}, "not whole numbers"),
        (lambda notes: notes[None], {}, "not whole numbers"),
        (lambda notes: notes[:0], {}, "not whole numbers"),
        (lambda notes: notes, {"size": 0}, "size is 0"),
        (lambda notes: notes, {"size": "4"}, "size is '4'"),
        (lambda notes: notes, {"frame_rate": 0}, "frame_rate is 0"),
        (lambda notes: notes, {"frame_rate": None}, "frame_rate is None"),
    ],
)
def test_tokens_that_are_not_the_records_are_refused(tmp_path, tokens, said, say):
    with pytest.raises(UserError, match=say):
        folder_of(tmp_path, [tokens(SOURCE.notes[0])], **said).of(SOURCE[0], RATE)


def test_tokens_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match="gone is not there"):
        open_tokens(tmp_path / "gone")
    with pytest.raises(UserError, match=r"semantic\.json"):
        open_tokens(tmp_path)
    with pytest.raises(UserError, match=r"1\.wav\.npy"):
        folder_of(tmp_path, [SOURCE.notes[0]]).of(SOURCE[1], RATE)


def codes_with(ratio: int, lengths=(23, 8, 3)) -> CodeSet:
    """Codes that say where they are, and tokens that say which frames they begin with."""
    codes = [np.arange(n, dtype=np.int32)[None] for n in lengths]
    tokens = [np.arange(0, n, ratio, dtype=np.int32) for n in lengths]
    words = [f"{i}" for i in range(len(lengths))]
    more = {"semantics": tokens, "semantic_size": 30, "semantic_ratio": ratio}
    return CodeSet(codes, words, words, words, 50.0, 32, **more)


@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_crops_are_whole_tokens(ratio):
    codes, frames = codes_with(ratio), 8
    cut = loader.cut_codes(frames, 4, semantic_ratio=ratio)
    rng, begins = np.random.default_rng(0), set()
    for index in [0, 1, 2] * 20:
        got = cut(codes[index], rng)
        assert got["condition/semantic"].shape == (frames // ratio,)
        heard = got["codes"][0, ::ratio][got["mask"][::ratio]]
        np.testing.assert_array_equal(got["condition/semantic"][: len(heard)], heard)
        begins.add(int(got["codes"][0, 0]))
    assert len(begins) > 2


def test_a_code_cache_keeps_them(tmp_path):
    codes = codes_with(2)
    codes.save(tmp_path / "c.npz")
    again = CodeSet.load(tmp_path / "c.npz")
    assert (again.semantic_size, again.semantic_ratio) == (30, 2)
    for a, b in zip(again.semantics, codes.semantics, strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.describe() == codes.describe() != codes_with(1).describe()


@pytest.mark.parametrize(
    "change",
    [
        {"semantics": np.zeros(16, np.int32)},  # seventeen are wanted
        {"semantics": np.full(18, 30)},
        {"semantics": np.zeros(18, np.float32)},
        {"semantic_size": 0},
        {"semantic_ratio": 0},
        {"semantic_ratio": 2.0},
        {"semantic_ratio": None},
    ],
)
def test_a_cache_whose_tokens_do_not_fit_is_refused(tmp_path, change):
    codes_with(2).save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as whole:
        arrays = {**whole, **change}
    np.savez(tmp_path / "c.npz", **{name: x for name, x in arrays.items() if x is not None})
    with pytest.raises(UserError, match=r"c\.npz"):
        CodeSet.load(tmp_path / "c.npz")
