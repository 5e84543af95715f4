"""Writes tests/fixtures/musicgen: tiny models of transformers with what they compute.

Command:  python tests/parity/make_musicgen_fixtures.py
Needs:    the extra `parity`. The ordinary suite reads what this writes, without torch.
"""

from pathlib import Path

import musicgen_peers as peers
import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "fixtures" / "musicgen"
IDS = np.array([[4, 5, 6, 7, 1, 0, 0], [9, 8, 7, 6, 5, 4, 1]])
FRAMES = 12
RATE = {"target_bandwidths": [16.0]}  # of four levels
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24}


@torch.no_grad()
def main():
    for kind in ("text", "stereo", "melody"):
        sizes = SMALL | {"vocab_size": 16, "pad_token_id": 16, "bos_token_id": 16}
        peer = peers.peer_of(
            kind, sizes, {"vocab_size": 24, "d_model": 12}, codebook_size=16, **RATE
        )
        peers.save(peer, FOLDER / kind)
        peers.extractor(peer.config).save_pretrained(FOLDER / kind)
        levels, rng = peer.config.decoder.num_codebooks, np.random.default_rng(0)
        # A row alone: theirs attends to padding in the prefix form, and pads null conditions.
        ids = IDS[1:]
        mask = np.ones_like(ids)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if kind == "melody":
            bins = rng.integers(0, 12, (1, peer.config.chroma_length))
            inputs["input_features"] = np.eye(12, dtype=np.float32)[bins]
        fed = rng.integers(0, 17, (1, levels, FRAMES))
        given = {name: torch.as_tensor(x) for name, x in inputs.items()}
        logits = peer(**given, decoder_input_ids=peers.rows(fed)).logits[:, -FRAMES:]
        arrays = {"fed": fed, "logits": logits.reshape(1, levels, FRAMES, 16).numpy()}
        arrays["greedy"] = peers.drawn(peer, FRAMES, **inputs).astype(np.int32)
        np.savez_compressed(FOLDER / kind / "expected.npz", **inputs, **arrays)


if __name__ == "__main__":
    main()
