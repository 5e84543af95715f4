"""Loading: the same examples whatever the process count, and exact resume from any step."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_jax.data import loader
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.stored import floats
from rvq_jax.errors import UserError


class Ramps:
    """Records whose samples say where they are from: value = 1000 · record + place + 1."""

    def __init__(self, lengths, channels: int = 1):
        self.lengths, self.channels = lengths, channels

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict:
        ramp_S = 1000.0 * index + np.arange(self.lengths[index]) + 1
        audio_SC = np.repeat(ramp_S[:, None], self.channels, 1).astype(np.float32)
        return {"audio": audio_SC, "name": str(index)}


SOURCE = Ramps([40, 7, 16, 90, 5, 23, 64], channels=2)
SAMPLES = 16


def some(count: int, iterator) -> list[dict]:
    return list(itertools.islice(iterator, count))


def same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def examples(batches: list[dict]) -> list[tuple]:
    """Every example as (index, first sample), which names record and place of the crop."""
    return [
        (int(index), float(audio[0, 0]))
        for batch in batches
        for index, audio in zip(batch["index"], batch["audio"], strict=True)
    ]


@given(batch=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_crops_are_stretches_of_their_record(batch, seed):
    for got in some(4, loader.batches(SOURCE, loader.cut_audio(SAMPLES), batch, seed)):
        assert got["audio"].shape == (batch, SAMPLES, 2) and got["audio"].dtype == np.float32
        assert got["mask"].shape == (batch, SAMPLES) and got["mask"].dtype == bool
        assert got["index"].shape == (batch,) and got["index"].dtype == np.int32
        for audio_SC, mask_S, index in zip(got["audio"], got["mask"], got["index"], strict=True):
            length = SOURCE.lengths[index]
            valid = min(length, SAMPLES)
            assert mask_S.tolist() == [True] * valid + [False] * (SAMPLES - valid)
            assert not audio_SC[valid:].any()
            begin = audio_SC[0, 0] - 1000 * index - 1
            assert 0 <= begin <= length - valid
            np.testing.assert_array_equal(
                audio_SC[:valid, 0], 1000 * index + begin + np.arange(valid) + 1
            )


def test_every_epoch_has_each_record_once_in_another_order_with_other_crops():
    got = examples(some(21, loader.batches(SOURCE, loader.cut_audio(SAMPLES), 1, 3)))
    epochs = [got[:7], got[7:14], got[14:]]
    for epoch in epochs:
        assert sorted(index for index, _ in epoch) == list(range(7))
    orders = [[index for index, _ in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2]
    crops = [dict(epoch)[3] for epoch in epochs]  # the record of 90 samples has 75 places
    assert len(set(crops)) == 3


class Stored(Ramps):
    """The same records with their audio as they are on disk."""

    def stored(self, index: int) -> dict:
        audio = np.random.default_rng(index).integers(-(2**15), 2**15, (self.lengths[index], 2))
        return {"audio": audio.astype(np.int16)}

    def __getitem__(self, index: int) -> dict:
        return {"audio": floats(self.stored(index)["audio"])}


def test_crops_of_what_is_stored_are_those_of_its_floats():
    stored, cut = Stored(SOURCE.lengths), loader.cut_audio(SAMPLES)
    # A list has nothing but its items.
    plain = [stored[i] for i in range(len(stored))]
    got, want = (some(6, loader.batches(x, cut, 3, 0)) for x in (stored, plain))
    assert got[0]["audio"].dtype == np.float32
    for batches in zip(got, want, strict=True):
        same(*batches)


def test_every_place_of_a_record_can_begin_a_crop():
    source, cut = Ramps([20]), loader.cut_audio(SAMPLES)
    begins = {cut(source[0], np.random.default_rng(i))["audio"][0, 0] for i in range(200)}
    assert begins == {1.0, 2.0, 3.0, 4.0, 5.0}


@given(seed=st.integers(0, 2**31), batch=st.integers(1, 8))
def test_a_crop_depends_on_seed_record_and_epoch_only(seed, batch):
    """Another batch size puts the same examples in the same order, whatever their company."""
    cut = loader.cut_audio(SAMPLES)
    one = examples(some(24, loader.batches(SOURCE, cut, 1, seed)))
    assert (
        examples(some(24 // batch, loader.batches(SOURCE, cut, batch, seed)))
        == (one[: 24 // batch * batch])
    )
    # In a source of another order the example is the same: the crop is its own.
    for place, (index, first) in enumerate(one):
        rng = np.random.default_rng((seed, index, place // len(SOURCE)))
        assert cut(SOURCE[index], rng)["audio"][0, 0] == first


@given(count=st.integers(2, 4), batch=st.integers(1, 4), seed=st.integers(0, 999))
def test_processes_together_hold_what_one_would(count, batch, seed):
    cut = loader.cut_audio(SAMPLES)
    whole = some(6, loader.batches(SOURCE, cut, count * batch, seed))
    rows = np.arange(count * batch).reshape(count, batch)
    parts = [some(6, loader.batches(SOURCE, cut, count * batch, seed, share)) for share in rows]
    for step in range(6):
        together = list(itertools.chain(*(examples([part[step]]) for part in parts)))
        assert together == examples([whole[step]])


def test_a_position_is_the_same_for_any_share_of_the_batch():
    """Saved by one process, it resumes two, each with its rows."""
    cut = loader.cut_audio(SAMPLES)
    whole = loader.batches(SOURCE, cut, 4, 7)
    some(3, whole)
    state = json.loads(json.dumps(whole.get_state()))
    want = some(3, whole)
    for rows in (np.array([0, 1]), np.array([1, 3])):
        part = loader.batches(SOURCE, cut, 4, 7, rows)
        part.set_state(state)
        for got, batch in zip(some(3, part), want, strict=True):
            same(got, {name: value[rows] for name, value in batch.items()})


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9])
def test_resume_from_any_step_is_exact(n):
    def make():
        return loader.batches(SOURCE, loader.cut_audio(SAMPLES), 3, 11)

    whole = some(n + 5, make())
    stopped = make()
    some(n, stopped)
    state = stopped.get_state()
    some(3, stopped)  # what was read after the save does not count
    for resumed in (make(), stopped):
        resumed.set_state(state)
        for want, got in zip(whole[n:], some(5, resumed), strict=True):
            same(want, got)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 20), st.integers(1, 5))
def test_segments_walk_every_sample_once_in_order(lengths, samples, batch):
    source = Ramps(lengths)
    walk = list(loader.segments(source, samples, batch))
    heard = []
    for got in walk:
        assert got["audio"].shape == (batch, samples, 1) and got["mask"].shape == (batch, samples)
        assert got["index"].dtype == np.int32 and not got["audio"][~got["mask"]].any()
        heard.append(got["audio"][got["mask"]][:, 0])
    want = np.concatenate([source[i]["audio"][:, 0] for i in range(len(source))])
    np.testing.assert_array_equal(np.concatenate(heard), want)
    rows = [mask.any() for got in walk for mask in got["mask"]]
    assert rows == sorted(rows, reverse=True)  # rows of padding only at the very end
    assert len(rows) - sum(rows) < batch


def code_set(lengths=(9, 30, 4), levels: int = 4, size: int = 1024) -> CodeSet:
    rng = np.random.default_rng(0)
    return CodeSet(
        [rng.integers(0, size, (levels, length), np.int32) for length in lengths],
        [f"clip{i}.wav#0" for i in range(len(lengths))],
        ["a slow piano", "", "caf\u00e9 \u266a"][: len(lengths)],
        ["a", "b", ""][: len(lengths)],
        50.0,
        size,
    )


def test_crops_of_codes_with_their_caption():
    source, frames, length = code_set(), 10, 6
    for got in some(6, loader.batches(source, loader.cut_codes(frames, length), 3, 0)):
        assert got["codes"].shape == (3, 4, frames) and got["codes"].dtype == np.int32
        assert got["mask"].shape == (3, frames) and got["text"].dtype == np.int32
        for codes_KF, mask_F, text_L, index in zip(
            got["codes"], got["mask"], got["text"], got["index"], strict=True
        ):
            whole_KF = source[index]["codes"]
            valid = min(frames, whole_KF.shape[1])
            assert mask_F.sum() == valid and mask_F[:valid].all()
            windows = np.lib.stride_tricks.sliding_window_view(whole_KF, valid, axis=1)
            assert (windows == codes_KF[:, None, :valid]).all((0, 2)).any()
            assert not codes_KF[:, valid:].any()
            data = source[index]["caption"].encode()[:length]
            assert text_L.tolist() == [byte + 1 for byte in data] + [0] * (length - len(data))


@pytest.mark.parametrize("size", [2, 256, 257, 65536, 65537])
def test_a_code_cache_comes_back_as_it_was(tmp_path, size):
    codes = code_set(size=size)
    codes.codes[0][:, 0] = size - 1  # the largest code must fit the stored type
    codes.save(tmp_path / "codes.npz")
    back = CodeSet.load(tmp_path / "codes.npz")
    assert len(back) == len(codes) == 3
    for i in range(len(codes)):
        same(back[i], codes[i])
        assert back[i]["codes"].dtype == np.int32
    assert (back.frame_rate, back.codebook_size) == (50.0, size)
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npz"]


def test_a_damaged_cache_is_refused_and_never_read_wrong(tmp_path):
    """Any cut or flipped bit gives a UserError, or hits a byte that carries nothing."""
    path, codes = tmp_path / "codes.npz", code_set()
    codes.save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    spoilt = [data[: len(data) * i // 10] for i in range(10)] + [b"hello", b"PK\x03\x04"]
    for place in rng.integers(0, len(data), 300):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        spoilt.append(bytes(flipped))
    errors = 0
    for content in spoilt:
        path.write_bytes(content)
        try:
            back = CodeSet.load(path)
        except UserError as error:
            assert "codes.npz" in str(error) and "\n" not in str(error)
            errors += 1
            continue
        assert (back.frame_rate, back.codebook_size) == (50.0, 1024)
        for i in range(3):
            same(back[i], codes[i])
    assert errors > 100


def test_a_missing_cache_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.npz"):
        CodeSet.load(tmp_path / "gone.npz")


def test_a_failed_save_keeps_the_old_cache(tmp_path, monkeypatch):
    path = tmp_path / "codes.npz"
    code_set().save(path)

    def half(file, **_):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(UserError, match="No space left"):
        code_set(size=9).save(path)
    assert CodeSet.load(path).codebook_size == 1024
    assert [path.name for path in tmp_path.iterdir()] == ["codes.npz"]
