"""What is seen of objects: one line, public names, plain numbers, help that can be read."""

import pydoc

import jax
import numpy as np
import pytest
import small_folders
import small_parallel

import rvq_jax as rj
from rvq_jax.quantize import Codebooks, Split

LONGEST = 400  # characters


def lines_of(thing) -> str:
    text = repr(thing)
    assert text.isprintable() and len(text) < LONGEST, text
    assert text.startswith(f"{type(thing).__name__}("), text
    return text


@pytest.fixture(scope="module")
def codec() -> rj.Codec:
    return rj.Codec.load("builtin")


def test_a_codec_is_a_line_with_its_numbers(codec):
    for said in ("16000 Hz", "50 frames a second", "8 levels of 1024 codes", "M parameters"):
        assert said in lines_of(codec)
    found = codec.rate, codec.channels, codec.frame_rate, codec.levels, codec.codebook_size
    c = codec.config
    assert found == (c.rate, c.channels, c.frame_rate, c.levels, c.codebook_size)
    assert found == (16_000, 1, 50.0, 8, 1024)


def test_codes_and_quantizers_are_a_line_of_shapes(codec):
    """Inside of a program too, where there are no values."""
    coded = codec.encode(np.zeros((1, 640, 1), np.float32))
    assert lines_of(coded) == "Coded(codes=int32[1,8,2], scales=None, samples=640, lengths=None)"
    lines_of(codec.quantizer)
    books = rj.quantize.init(jax.random.key(0), levels=2, size=4, dim=3)
    assert lines_of(books).startswith("Codebooks(vectors=float32[2,4,3], sums=float32[2,4,3], ")
    lines_of(rj.patterns.delay(levels=4, frames=1500))
    lines_of(rj.quantize.quantize(books, np.zeros((1, 5, 3), np.float32)))
    lines_of(Split(books, books))
    said = []
    jax.eval_shape(lambda b: said.append(repr(b)), books)
    assert said == [repr(books)]


def test_a_tree_of_anything_has_a_line():
    """JAX puts marks in place of arrays."""
    line = "Codebooks(vectors=1, sums=None, counts=(2, float32[3]), sizes=None)"
    assert repr(Codebooks(1, None, (2, np.zeros(3, np.float32)))) == line


@pytest.mark.parametrize("name", ["soundstorm", "magnet", "valle", "semantic", "speaking"])
def test_a_model_is_a_line_with_its_parts(name):
    model = getattr(small_parallel, name)()
    text = lines_of(model)
    assert "M parameters" in text and " of " in text
    assert all(not name.startswith("_") for name in dir(model)) and "load" in dir(model)


def test_a_musicgen_says_its_pattern_codec_and_text_encoder(tmp_path):
    model = small_folders.own()
    assert "delay" in lines_of(model) and repr(model.codec) in repr(model)
    assert "reads captions itself" in repr(model)
    model = small_folders.published("text", tmp_path)
    assert repr(model.text) in lines_of(model)
    lines_of(model.text)
    lines_of(model.text.tokenizer)


def test_tab_completion_has_public_names_only(codec):
    assert all(not name.startswith("_") for name in dir(codec))
    assert {"config", "encode", "rate", "save", "name"} <= {*dir(codec)}
    assert [name for name in dir(rj) if name.startswith("_")] == ["__version__"]


@pytest.mark.parametrize("name", ["Codec", "MusicGen"])
def test_help_explains_what_is_public(name):
    """Every public method and property in a sentence."""
    cls = getattr(rj, name)
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    for member in (x for x in vars(cls) if not x.startswith("_")):
        assert member in text
        # Fields of the dataclass are explained where they are declared.
        if member not in cls.__dataclass_fields__:
            assert getattr(cls, member).__doc__, member
