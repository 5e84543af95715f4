"""What is called is one program, and called again with the same shapes none, jitted or not."""

import jax
import numpy as np
import pytest

from rvq_jax import draws, metrics, quantize
from rvq_jax.systems.semantic_tokenizer import BANDS, SemanticTokenizer

LEVELS, SIZE, DIM = 2, 4, 8
COMPILE = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiles():
    """The compiles of this process so far, by a list of one number."""
    count = [0]

    def listen(event: str, seconds: float, **details) -> None:
        count[0] += event == COMPILE

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield count
    jax.monitoring.unregister_event_duration_listener(listen)


KEY = jax.random.key(0)
STATE = quantize.init(KEY, levels=LEVELS, size=SIZE, dim=DIM)
CALLS = {
    "nearest": lambda x, codes: quantize.nearest(x.reshape(-1, DIM), STATE.vectors[0]),
    "encode": lambda x, codes: quantize.encode(STATE, x),
    "encode, beam": lambda x, codes: quantize.encode(STATE, x, beam=3),
    "decode": lambda x, codes: quantize.decode(STATE, codes),
    "quantize": lambda x, codes: quantize.quantize(STATE, x),
    "quantize, training": lambda x, codes: quantize.quantize(STATE, x, key=KEY, train=True),
    "start": lambda x, codes: quantize.start(KEY, STATE, x.reshape(-1, DIM)),
    "fit": lambda x, codes: quantize.fit(KEY, x.reshape(-1, DIM), levels=LEVELS, size=SIZE),
    "refine": lambda x, codes: quantize.refine(
        STATE, x.reshape(-1, DIM), codes.swapaxes(0, 1).reshape(LEVELS, -1) % SIZE
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_public_function_called_again_compiles_nothing(name, compiles):
    rng = np.random.default_rng(0)
    x_BFD = rng.standard_normal((2, 20, DIM), np.float32)
    codes = np.zeros((2, LEVELS, 20), np.int32)
    CALLS[name](x_BFD, codes)
    before = compiles[0]
    CALLS[name](x_BFD + 1, codes + 1)
    assert compiles[0] == before


# Of sizes that nothing else has.
SOUNDS = np.random.default_rng(0).standard_normal((2, 3, 1237), np.float32)
AT_ONCE = {
    "normal": lambda: draws.normal(KEY, (3, 1237), 0.1),
    "truncated normal": lambda: draws.truncated_normal(KEY, (3, 1237), 0.1),
    "uniform": lambda: draws.uniform(KEY, (3, 1237), 0.1),
    "SI-SDR": lambda: metrics.si_sdr(*SOUNDS),
    "mel distance": lambda: metrics.mel_distance(*SOUNDS, 16_000),
    "STFT distance": lambda: metrics.stft_distance(*SOUNDS, 16_000),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_is_called_by_itself_is_one_program(name, compiles):
    """Not one of each of its operations, which take longer to compile than all at once."""
    AT_ONCE[name]()
    assert compiles == [1]


def test_a_tokenizer_of_clips_compiles_once_for_all_lengths_of_as_many_seconds(compiles):
    rng = np.random.default_rng(0)
    tokenizer = SemanticTokenizer(rng.standard_normal((8, BANDS), np.float32), 8000, 25.0)
    tokenizer.encode(rng.standard_normal((15990, 1)))
    before = compiles[0]
    for samples in (8001, 12345, 16000):
        assert len(tokenizer.encode(rng.standard_normal((samples, 1)))) == -(-samples // 320)
    assert compiles[0] == before
