"""`rvq-jax data build --codes`: a corpus is encoded once, by one codec, and trained on."""

import json

import jax
import numpy as np
import pytest
import small_codecs
import soundfile
from command import good, leftovers, refuses, run
from small_lm import CONFIG as LM
from small_lm import PARAMS
from tiers import slow

from rvq_jax.audio import chroma
from rvq_jax.codec.config import CodecConfig
from rvq_jax.data import builder
from rvq_jax.data.codes import CodeSet
from rvq_jax.data.melodies import MelodyCut
from rvq_jax.systems.codec import Codec
from rvq_jax.systems.musicgen import MusicGen
from rvq_jax.systems.semantic_tokenizer import SemanticTokenizer
from rvq_jax.train.codes import encode_records

RATE = small_codecs.RATE


@pytest.fixture(scope="module")
def codecs(tmp_path_factory):
    return small_codecs.folders(tmp_path_factory)


@pytest.fixture(scope="module")
def built(codecs, tmp_path_factory):
    """A corpus of three clips with its codes, and what the command said."""
    place = tmp_path_factory.mktemp("codes")
    words = ["data", "build", good(place / "in"), "--out", place / "out", "--codes", codecs["mono"]]
    return words, place / "out"


def test_a_corpus_is_encoded_once(capsys, built, codecs):
    """Codes of every record at the codec's rate, with their captions; the second time they are
    read."""
    words, out = built
    code, said, lines = run(capsys, *words, "--json")
    assert (code, lines) == (0, [])
    said = json.loads(said)
    codec = Codec.load(codecs["mono"])
    for split in ("train", "heldout"):
        records, codes = builder.open_split(out, split), CodeSet.load(out / f"{split}.npz")
        assert said[split]["records"] == len(codes) == len(records) > 0
        assert codes.codec and codes.codebook_size == 16 and codes.frame_rate == 100.0
        for record, mine in zip(records, codes, strict=False):
            whole = codec.encode(record["audio"][None]).codes[0]
            np.testing.assert_array_equal(mine["codes"], whole)
            assert (mine["name"], mine["caption"]) == (record["name"], record["caption"])
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    assert run(capsys, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.npz")} == before
    assert len(before) == 2 and leftovers(out) == []


def test_codes_of_another_codec_are_not_taken_for_this_ones(capsys, built, codecs, tmp_path):
    words, _ = built
    assert run(capsys, *words)[0] == 0
    other = Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(9))
    other.save(tmp_path / "other")
    refuses(capsys, *words[:-1], tmp_path / "other", say=("train.npz", "another codec"))


@pytest.mark.parametrize(
    ("flags", "say"),
    [
        (("--rate", "500"), ("--rate is 500", "600")),
        (("--piece", "0"), ("--piece",)),
    ],
)
def test_what_the_codec_cannot_encode_is_told(capsys, built, tmp_path, flags, say):
    words, _ = built
    words = [*words[:4], tmp_path / "new", *words[5:]]
    refuses(capsys, *words, *flags, say=say)
    assert not (tmp_path / "new").exists()


def test_a_codec_of_segments_is_refused(capsys, built, codecs, tmp_path):
    words = [*built[0][:4], tmp_path / "new", "--codes", codecs["stereo"]]
    refuses(capsys, *words, say=("segments",))
    assert not (tmp_path / "new").exists()


def test_a_musicgen_lends_its_codec(capsys, tmp_path, built):
    """The codes of its codec alone; and a folder without one is refused."""
    lm_codec = CodecConfig(
        RATE, small_codecs.seanet(lstm_layers=0), levels=LM.levels, codebook_size=LM.codebook_size
    )
    codec = Codec.init(lm_codec, jax.random.key(0))
    MusicGen(LM, "delay", PARAMS, codec).save(tmp_path / "model")
    words = [*built[0][:4], tmp_path / "out", "--codes", tmp_path / "model"]
    assert run(capsys, *words)[0] == 0
    codes = CodeSet.load(tmp_path / "out" / "train.npz")
    assert codes.codes[0].shape[0] == LM.levels and codes.codebook_size == LM.codebook_size
    refuses(capsys, *words[:-1], tmp_path / "gone", say=("gone", "not a model folder"))


def test_two_channels_of_a_codec_of_one_have_levels_of_their_own(codecs):
    """Side by side, left first, as stereo MusicGen reads them."""
    codec = Codec.load(codecs["mono"])
    audio = 0.1 * np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    record = {"audio": audio, "name": "a", "caption": "", "label": ""}
    [codes] = encode_records(codec, [record], "test").codes
    for channel in range(2):
        alone = codec.encode(audio[None, :, channel : channel + 1]).codes[0]
        np.testing.assert_array_equal(codes[channel::2], alone)


@pytest.mark.parametrize("name", ["mono", slow("dac")])
def test_codes_do_not_depend_on_how_clips_are_padded(codecs, name):
    """To whole seconds, of which neither the last frame nor a codec that sees ahead knows."""
    codec = Codec.load(codecs[name])
    audio = 0.1 * np.random.default_rng(0).normal(size=(757, 1)).astype(np.float32)
    record = {"audio": audio, "name": "a", "caption": "", "label": ""}
    [codes] = encode_records(codec, [record], "test").codes
    np.testing.assert_array_equal(codes, codec.encode(audio[None]).codes[0])


def test_long_files_are_cut_into_pieces_as_long_as_asked(capsys, codecs, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for name in "ab":
        soundfile.write(place / f"{name}.wav", np.zeros(7 * RATE), RATE)
    words = ["data", "build", place, "--out", tmp_path / "out", "--codes", codecs["mono"]]
    assert run(capsys, *words, "--piece", 3)[0] == 0
    lengths = [codes.shape[1] for codes in CodeSet.load(tmp_path / "out" / "train.npz").codes]
    assert sorted(lengths) == [100, 300, 300]


def test_a_melody_is_kept_beside_the_codes(capsys, codecs, tmp_path, built):
    """The strongest pitch classes of every record, and back from the file; a cache without them
    is told."""
    words = [*built[0][:4], tmp_path / "out", *built[0][5:]]
    assert run(capsys, *words, "--melody", 12)[0] == 0
    codes = CodeSet.load(tmp_path / "out" / "train.npz")
    assert (codes.melody_bins, codes.melody_rate) == (12, RATE / 4096)
    for record, mine in zip(builder.open_split(tmp_path / "out", "train"), codes, strict=False):
        found = chroma.chroma(record["audio"][None], RATE, 12)[0].argmax(-1)
        assert mine["melody"].tolist() == found.tolist()
    (tmp_path / "out" / "train.npz").unlink()
    assert run(capsys, *words)[0] == 0
    refuses(capsys, *words, "--melody", 12, say=("train.npz", "no melody of 12"))


def test_semantic_tokens_are_kept_beside_the_codes(capsys, codecs, tmp_path, built):
    """By k-means fitted on train, the same for held-out clips; a cache without them is told."""
    words = [*built[0][:4], tmp_path / "out", *built[0][5:]]
    kmeans = ["--semantic", "kmeans", "--semantic-size", 5, "--semantic-rate"]
    assert run(capsys, *words, *kmeans, 25)[0] == 0
    tokenizer = SemanticTokenizer.load(tmp_path / "out" / "semantic.npz")
    for split in ("train", "heldout"):
        codes = CodeSet.load(tmp_path / "out" / f"{split}.npz")
        assert (codes.semantic_size, codes.semantic_ratio) == (5, 4)
        for record, mine in zip(builder.open_split(tmp_path / "out", split), codes, strict=False):
            tokens = tokenizer.encode(record["audio"])
            assert len(tokens) == -(-mine["codes"].shape[1] // 4)
            np.testing.assert_array_equal(mine["semantic"], tokens)
    refuses(capsys, *words, *kmeans, 20, say=("semantic.npz", "5 tokens at 25", "--out"))
    refuses(capsys, *words, *kmeans, 30, say=("30", "do not divide", "100 frames"))
    refuses(capsys, *words[:-2], *kmeans, 25, say=("--codes",))
    (tmp_path / "out" / "train.npz").unlink()
    assert run(capsys, *words)[0] == 0
    refuses(capsys, *words, *kmeans, 25, say=("train.npz", "no 5 semantic tokens at 25"))


def test_semantic_tokens_made_elsewhere_are_kept(capsys, tmp_path, built):
    words = [*built[0][:4], tmp_path / "out", *built[0][5:]]
    refuses(capsys, *words, "--semantic", tmp_path / "gone", say=("gone is not there",))
    records = [x for split in ("train", "heldout") for x in builder.open_split(built[1], split)]
    for i, record in enumerate(records):
        path = tmp_path / "tokens" / f"{record['name']}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full(-(-len(record["audio"]) * 50 // RATE), i))
    said = {"size": len(records), "frame_rate": 50.0}
    (tmp_path / "tokens" / "semantic.json").write_text(json.dumps(said))
    assert run(capsys, *words, "--semantic", tmp_path / "tokens")[0] == 0
    found = [CodeSet.load(tmp_path / "out" / f"{split}.npz") for split in ("train", "heldout")]
    tokens = [x["semantic"] for codes in found for x in codes]
    assert [set(x.tolist()) for x in tokens] == [{i} for i in range(len(records))]


def test_a_crop_has_the_melody_of_its_time():
    """At two pitch classes for three frames, repeated from its start where it is shorter."""
    heard = MelodyCut(per_frame=2 / 3, bins=12, length=5)
    record = {"melody": np.arange(9, dtype=np.uint8)}
    for begin, frames, want in ((0, 3, [0, 1, 2, 0, 1]), (6, 6, [4, 5, 6, 7, 8]), (11, 1, [7] * 5)):
        melody = heard.conditions(record, begin, frames)["melody"]
        assert melody.shape == (5, 12) and melody.sum(1).tolist() == [1.0] * 5
        assert melody.argmax(1).tolist() == want
