"""MusicGens of transformers under audiocraft's names, saved by torch, imported to the bit."""

import dataclasses

import jax
import numpy as np
import pytest
from audiocraft_files import CONFIG, original

from rvq_jax.systems import from_audiocraft
from rvq_jax.systems.musicgen import MusicGen

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

import musicgen_peers  # noqa: E402

DELAYS = {"text": [0, 1, 2, 3], "melody": [0, 1, 2, 3], "stereo": [0, 0, 1, 1, 2, 2, 3, 3]}


@pytest.mark.parametrize("half", [False, True], ids=["single", "half"])
@pytest.mark.parametrize("kind", DELAYS)
def test_a_model_under_audiocrafts_names_is_the_one_of_transformers(tmp_path, kind, half):
    """Parameters equal in every bit, as are what they draw; so also from half precision."""
    peer = musicgen_peers.peer_of(kind)
    if half:
        peer = peer.half().float()
    musicgen_peers.save(peer, tmp_path / "whole")
    peer.audio_encoder.save_pretrained(tmp_path / "codec")
    peer.text_encoder.save_pretrained(tmp_path / "text")
    tokenizer = transformers.T5Tokenizer(vocab=musicgen_peers.PIECES, extra_ids=2)
    tokenizer.save_pretrained(tmp_path / "text")
    tensors = {name: value.numpy() for name, value in peer.state_dict().items()}
    tensors = {n: x for n, x in tensors.items() if not n.endswith("embed_positions.weights")}
    state = {name: torch.tensor(value) for name, value in original(tensors).items()}
    if half:
        state = {name: value.half() for name, value in state.items()}
    # 1.6 s are the 7 frames of a melody that the peer has.
    config = CONFIG.format(seconds=1.6, heads=4, delays=DELAYS[kind])
    torch.save({"best_state": state, "xp.cfg": config}, tmp_path / "state_dict.bin")
    path, parts = tmp_path / "state_dict.bin", (tmp_path / "codec", tmp_path / "text")
    ours, theirs = from_audiocraft.load(path, *parts), MusicGen.load(tmp_path / "whole")
    assert ours.pattern == theirs.pattern
    assert dataclasses.replace(ours.config, window=None) == dataclasses.replace(
        theirs.config, window=None
    )
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
    audio = [m.generate(["slow piano"], 0.02, jax.random.key(0)) for m in (ours, theirs)]
    np.testing.assert_array_equal(*audio)
