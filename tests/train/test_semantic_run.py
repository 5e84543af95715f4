"""A model of semantic tokens is trained, kept and asked as others are, and says where clips end."""

import jax
import numpy as np
import pytest
from small_lm import KEY

from rvq_jax.data.codes import CodeSet
from rvq_jax.errors import UserError
from rvq_jax.lm.model import LMConfig
from rvq_jax.systems.semantic import SemanticModel
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import SemanticRun
from rvq_jax.train.runs.batches import one_device
from rvq_jax.train.runs.semantic import semantic_set
from rvq_jax.train.state import OptimizerConfig

N, FRAMES = 6, 10
# What a caption says: how many tokens, all of them the same.
SAID = {"a": 4, "bb": 7}


def code_set(rows: int = 8) -> CodeSet:
    """Clips of one token each, as long as their captions say."""
    captions = [list(SAID)[i % 2] for i in range(rows)]
    tokens = [np.full(SAID[caption], len(caption), np.int32) for caption in captions]
    codes = [np.zeros((2, 2 * len(x)), np.int32) for x in tokens]
    names = [f"{i}" for i in range(rows)]
    return CodeSet(
        codes, names, captions, names, 50.0, 4,
        semantics=tokens, semantic_size=N, semantic_ratio=2,
    )  # fmt: skip


LM = LMConfig(levels=1, codebook_size=N, dim=32, layers=1, mlp_dim=64, caption_bytes=4, end=True)
RUN = SemanticRun(
    lm=LM,
    loop=LoopConfig(steps=150, checkpoint_every=200, log_every=50, evaluate_every=0),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup=10, weight_decay=0.0),
    frames=FRAMES,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SemanticModel:
    place = tmp_path_factory.mktemp("semantic")
    code_set().save(place / "train.npz")
    model = RUN.train(place / "run", place / "train.npz", one_device())
    model.save(place / "model")
    return SemanticModel.load(place / "model")


def test_it_says_what_its_captions_do_and_ends(trained):
    """Each row its own tokens, and as many; rows that may not go on so long are cut, and say so."""
    assert (trained.frame_rate, trained.size) == (25.0, N)
    found = trained.sample(list(SAID), FRAMES / 25, KEY, temperature=0.0)
    assert found.lengths.tolist() == list(SAID.values()) and found.ended.all()
    for row, caption in zip(found.tokens, SAID, strict=True):
        want = np.where(np.arange(FRAMES) < SAID[caption], len(caption), 0)
        np.testing.assert_array_equal(row, want)
    cut = trained.sample(list(SAID), 5 / 25, KEY, temperature=0.0)
    assert cut.lengths.tolist() == [4, 5] and cut.ended.tolist() == [True, False]


def test_a_row_is_sampled_as_it_is_alone(trained):
    captions = ["a", "bb", ""]
    together = trained.sample(captions, 0.4, KEY)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.arange(3))
    for i, caption in enumerate(captions):
        alone = trained.sample([caption], 0.4, keys[i : i + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[i])


def test_a_prompt_is_kept(trained):
    prompt = np.array([[5, 3], [1, 0]])
    found = trained.sample(["a", "bb"], 0.4, KEY, prompt=prompt)
    np.testing.assert_array_equal(found.tokens[:, :2], prompt)


def test_bits_are_of_tokens_and_ends(trained):
    """A clip as its caption says it costs next to nothing, its end among that; another does not."""
    tokens = np.full((1, FRAMES), 1)
    bits = [
        np.asarray(trained.score(tokens, ["a"], (np.arange(FRAMES) < n)[None])).sum()
        for n in (4, 6)
    ]
    assert bits[0] < 1 < 3 < bits[1]


@pytest.mark.parametrize(
    ("asked", "say"),
    [
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": 0.5}, "was trained on 0.4"),
        ({"prompt": np.zeros((1, 10), int)}, "fewer than 10"),
        ({"prompt": np.full((1, 2), N)}, "must be in"),
        ({"guidance_scale": np.nan}, "guidance_scale"),
    ],
)
def test_what_it_cannot_do_is_said(trained, asked, say):
    with pytest.raises(ValueError, match=say):
        trained.sample(["a"], **({"seconds": 0.4, "key": KEY} | asked))


@pytest.mark.parametrize(
    ("change", "words", "say"),
    [
        ({}, {"codec": "builtin"}, "--codec"),
        ({"init_from": "x"}, {}, "--init-from"),
        ({"lm": LMConfig(levels=1, codebook_size=N)}, {}, "an end"),
    ],
)
def test_a_run_that_cannot_be_is_refused(tmp_path, change, words, say):
    code_set().save(tmp_path / "train.npz")
    with pytest.raises(UserError, match=say):
        SemanticRun(**{**vars(RUN), **change}).train(
            tmp_path / "run", tmp_path / "train.npz", one_device(), **words
        )


def test_codes_without_tokens_are_refused():
    codes = code_set()
    bare = CodeSet(codes.codes, codes.names, codes.captions, codes.labels, 50.0, 4)
    with pytest.raises(UserError, match="--semantic"):
        semantic_set(bare)


def test_another_folder_is_refused(trained, tmp_path):
    trained.lm.save(tmp_path / "lm")
    with pytest.raises(UserError, match="no semantic model"):
        SemanticModel.load(tmp_path / "lm")
