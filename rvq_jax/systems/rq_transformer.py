"""Published sizes of temporal models with a depth transformer over the levels of each frame.

Here text comes as states of a frozen encoder before the codes. The published ones read it by an
embedding of its own vocabulary, and Moshi writes it too.
"""

from rvq_jax.lm.depth import DepthConfig
from rvq_jax.lm.model import LMConfig


def csm_1b() -> LMConfig:
    """CSM-1B's shape (Sesame 2025): Llama of 1B over frames of Mimi's 32 levels, 100M over levels.

    1.42 billion parameters. Published: 1.55 billion, of which 263 million embed 128,256 tokens of
    text. There the embeddings of codes, 134 million, are the same in both models; here each has its
    own. Theirs have 2,051 ids, ours 2,048 codes and the special id. Their rotary angles are scaled
    as Llama 3.1's, here they are not. Its pattern is `parallel`.
    """
    depth = DepthConfig(
        dim=1024,
        layers=4,
        heads=8,
        kv_heads=2,
        mlp_dim=8192,
        state="first",
        rope_theta=500_000.0,
    )
    return LMConfig(
        levels=32,
        codebook_size=2048,
        dim=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        mlp_dim=8192,
        block="llama",
        rope_theta=500_000.0,
        text_dim=768,
        text_as="prefix",
        window=2048,
        end=True,
        depth=depth,
    )


def moshi_7b() -> LMConfig:
    """Moshi's shape (Défossez et al. 2024): 7B over frames, for each of 8 levels its own matrices.

    7.33 billion parameters. Published: 7.69 billion, of which 295 million embed and predict 32,000
    tokens of text, and 67 million embed the 8 levels of the other speaker. Its pattern is
    `partial_delay`: all levels but the first one frame later.
    """
    depth = DepthConfig(
        dim=1024,
        layers=6,
        heads=16,
        mlp_dim=2816,
        shared=False,
        positions="none",
        norm=False,
        eps=1e-8,
    )
    return LMConfig(
        levels=8,
        codebook_size=2048,
        dim=4096,
        layers=32,
        heads=32,
        mlp_dim=11_264,
        block="llama",
        eps=1e-8,
        text_dim=768,
        text_as="prefix",
        window=3000,
        depth=depth,
    )
