"""Features are cut with their audio: the right frames at any rate, and what is wrong is named."""

import json

import numpy as np
import pytest

from rvq_jax.data import loader
from rvq_jax.data.features import open_features
from rvq_jax.errors import UserError

RATE, HOP = 100, 10  # ten frames a second
LENGTHS = (205, 90, 44)


class Places:
    """Records whose samples are their own places, from 0."""

    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, index):
        places_S = np.arange(LENGTHS[index], dtype=np.float32)
        return {"audio": places_S[:, None], "name": f"folder/clip{index}.wav#0"}


SOURCE = Places()


def write(folder, frame_rate: float, dtype="float32", less: int = 0):
    """Of each record, where its features begin in samples, and which record it is."""
    for index, length in enumerate(LENGTHS):
        begins = np.arange(int(length * frame_rate / RATE) - less) * RATE / frame_rate
        path = folder / f"{SOURCE[index]['name']}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.stack([begins, np.full(len(begins), index)], 1).astype(dtype))
    (folder / "features.json").write_text(json.dumps({"frame_rate": frame_rate}))
    return open_features(folder, SOURCE, RATE, HOP)


def crops(cut, count: int = 12):
    rng = np.random.default_rng(0)
    return [(i, cut(SOURCE[i], rng)) for i in range(len(SOURCE)) for _ in range(count)]


@pytest.mark.parametrize("frame_rate", [10.0, 40.0, 25.0, 5.0])
@pytest.mark.parametrize("dtype, less", [("float32", 0), ("float16", 1)])
def test_a_frame_has_the_mean_of_the_features_that_begin_in_it(tmp_path, frame_rate, dtype, less):
    """Of fewer features, the one that the frame begins in; also where the last is left out."""
    cut = loader.cut_audio(60, write(tmp_path, frame_rate, dtype, less))
    begins = set()
    for index, got in crops(cut):
        assert got["features"].shape == (6, 2) and got["features"].dtype == np.float32
        begin = got["audio"][0, 0]
        begins.add(begin)
        assert begin % HOP == 0
        last = int(LENGTHS[index] * frame_rate / RATE) - less - 1
        every = np.arange(1000) * RATE / frame_rate
        for frame, feature in enumerate(got["features"]):
            low = begin + frame * HOP
            if low >= LENGTHS[index]:
                assert not feature.any() and not got["mask"][frame * HOP]
                continue
            inside = every[(every >= low) & (every < low + HOP)]
            inside = inside if frame_rate >= RATE / HOP else every[every <= low][-1:]
            want = np.minimum(inside, last * RATE / frame_rate).mean()
            np.testing.assert_allclose(feature, [want, index], rtol=1e-3)
    assert len(begins) > 5


def test_without_a_rate_features_are_of_the_codecs_frames(tmp_path):
    stated = write(tmp_path, 10.0)
    (tmp_path / "features.json").unlink()
    assert open_features(tmp_path, SOURCE, RATE, HOP) == stated
    assert stated.size == 2 and stated.frame_rate == 10.0


def test_batches_have_the_features_of_their_records(tmp_path):
    batches = loader.batches(SOURCE, loader.cut_audio(60, write(tmp_path, 20.0)), 3, 0)
    for _ in range(3):
        got = next(batches)
        assert got["features"].shape == (3, 6, 2)
        np.testing.assert_array_equal(got["features"][:, 0, 1], got["index"])


def test_a_crop_is_whole_frames(tmp_path):
    with pytest.raises(ValueError, match="whole frames"):
        loader.cut_audio(65, write(tmp_path, 10.0))


def rows(count: int, size: int = 2, dtype="float32", value: float = 0.0):
    return np.full((count, size), value, dtype)


@pytest.mark.parametrize(
    "array, say",
    [
        (None, "No such file"),
        (rows(12), "its audio is 0.90 s"),
        (rows(6), "its audio is 0.90 s"),
        (rows(9, 3), "of size 3 where others are of 2"),
        (rows(9, value=np.nan), "not finite"),
        (rows(9, dtype="float64"), "float16 or float32"),
        (rows(9)[:, 0], "float16 or float32"),
        (np.asfortranarray(rows(9)), "in rows"),
        (b"\x93NUMPY", "features"),
        (b"hello", "features"),
    ],
)
def test_wrong_features_are_named(tmp_path, array, say):
    cut = loader.cut_audio(60, write(tmp_path, 10.0))
    path = tmp_path / "folder" / "clip1.wav#0.npy"
    path.unlink()
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    cut(SOURCE[0], np.random.default_rng(0))
    with pytest.raises(UserError, match=say) as caught:
        cut(SOURCE[1], np.random.default_rng(0))
    assert f"{path}" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_features_are_refused_or_read_in_their_shape(tmp_path):
    cut = loader.cut_audio(60, write(tmp_path, 10.0))
    path = tmp_path / "folder" / "clip1.wav#0.npy"
    data, rng, errors = path.read_bytes(), np.random.default_rng(0), 0
    for place in [*rng.integers(0, 128, 60), *rng.integers(128, len(data), 20)]:
        spoilt = bytearray(data)
        spoilt[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(spoilt))
        try:
            assert cut(SOURCE[1], rng)["features"].shape == (6, 2)
        except UserError:
            errors += 1
    assert errors > 30


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"frame_rate": "50"}', '{"frame_rate": 0}'])
def test_a_rate_that_is_none_is_named(tmp_path, text):
    write(tmp_path, 10.0)
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(UserError, match=r"features\.json"):
        open_features(tmp_path, SOURCE, RATE, HOP)


def test_a_folder_that_is_not_there_or_lacks_the_first_is_named(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        open_features(tmp_path / "gone", SOURCE, RATE, HOP)
    with pytest.raises(UserError, match=r"clip0\.wav#0\.npy"):
        open_features(tmp_path, SOURCE, RATE, HOP)
