"""Audio → semantic tokens: k-means on log-mel frames.

A coarse integer sequence at a rate that divides the codec's, where no clusters of a speech model's
features are at hand (Lakhotia et al. 2021; SoundStorm's are w2v-BERT's).
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax import files, npz, quantize
from rvq_jax.audio import spectral
from rvq_jax.errors import UserError
from rvq_jax.trees import one_line
from rvq_jax.typing import Key

BANDS = 64
VECTORS = 200_000  # that k-means is fitted to at most
FASTEST = 768_000  # samples per second


@dataclass(frozen=True, eq=False)
class SemanticTokenizer:
    """Audio to semantic tokens by k-means on log-mel frames."""

    vectors: np.ndarray  # [N, D] float32, of log-mel frames
    rate: int  # samples of audio per second
    frame_rate: float  # tokens per second

    __repr__ = one_line

    @property
    def size(self) -> int:
        """N, how many tokens there are."""
        return len(self.vectors)

    def of(self, record: dict, rate: int) -> np.ndarray:
        """Tokens of a record's audio; raises UserError for another rate than it was fitted at."""
        if rate != self.rate:
            raise UserError(f"the tokenizer reads {self.rate} Hz, the audio has {rate}")
        return self.encode(record["audio"])

    def encode(self, audio_SC: np.ndarray) -> np.ndarray:
        """Tokens `[T]` int32 of audio `[S, C]`, T the parts of a token's length that cover it."""
        hop = round(self.rate / self.frame_rate)
        frames_TD = log_mel_frames(audio_SC, self.rate, hop)
        found_T = quantize.nearest(frames_TD, jnp.asarray(self.vectors))
        return np.asarray(found_T)[: -(-len(audio_SC) // hop)]

    def save(self, path: str | Path) -> None:
        """Writes one .npz, whole or not at all."""
        with files.writing(path) as target, target.open("wb") as file:
            np.savez(file, vectors=self.vectors, rate=self.rate, frame_rate=self.frame_rate)

    @classmethod
    def load(cls, path: str | Path) -> "SemanticTokenizer":
        """Reads what `save` wrote; raises UserError if it is not that or is damaged."""
        with npz.reading(path, "a tokenizer", "delete it, and it is made again") as arrays:
            vectors, rate, frame_rate = (arrays[n] for n in ("vectors", "rate", "frame_rate"))
            if vectors.ndim != 2 or vectors.shape[1] != BANDS or vectors.dtype != np.float32:
                raise ValueError("its vectors are no log-mel frames")
            if not len(vectors) or not np.isfinite(vectors).all():
                raise ValueError("its vectors are not finite")
            if rate.shape != () or rate.dtype.kind not in "iu" or not 1 <= rate <= FASTEST:
                raise ValueError("its rate is none")
            if frame_rate.shape != () or not 0 < frame_rate <= rate:
                raise ValueError("its frame_rate is none")
            return cls(vectors, int(rate), float(frame_rate))


def fit_tokenizer(key: Key, source, size: int, frame_rate: float) -> SemanticTokenizer:
    """Fits k-means to the log-mel frames of a dataset.

    Args:
      key: for random numbers.
      source: records with audio `[S, C]` (`rvq_jax.data.builder.open_split`), and their rate.
      size: N, how many tokens there are.
      frame_rate: tokens per second.

    Returns:
      The tokenizer.

    Raises:
      UserError: fewer frames than tokens, or a frame rate that does not divide the audio's.
    """
    rate = source.rate
    # Records in an order of their own, so that the first ones that fill it are of all kinds.
    order = np.random.default_rng(0).permutation(len(source))
    found, count = [], 0
    for index in order:
        audio_SC = source[int(index)]["audio"]
        frames_TD = log_mel_frames(audio_SC, rate, round(rate / frame_rate))
        found.append(np.asarray(frames_TD)[: -(-len(audio_SC) // round(rate / frame_rate))])
        count += len(found[-1])
        if count >= VECTORS:
            break
    if count < size:
        raise UserError(
            f"{size} semantic tokens need as many frames, the dataset has {count} at "
            f"{frame_rate:g} a second; ask for fewer"
        )
    vectors_MD = np.concatenate(found)[:VECTORS]
    # By k-means++: the progressive one of `quantize.fit` leaves what is unlike in one cluster.
    first_key, key = jax.random.split(key)
    state = quantize.init(first_key, levels=1, size=size, dim=BANDS)
    state = quantize.start(key, state, vectors_MD, plus_plus=True)
    return SemanticTokenizer(np.asarray(state.vectors[0]), rate, frame_rate)


def cached_tokenizer(path: str | Path, source, size: int, frame_rate: float) -> SemanticTokenizer:
    """The tokenizer of a dataset, fitted first if it is not there.

    Args:
      path: the .npz.
      source: as of `fit_tokenizer`.
      size: as of `fit_tokenizer`.
      frame_rate: as of `fit_tokenizer`.

    Returns:
      The tokenizer.

    Raises:
      UserError: as `fit_tokenizer`; a file that is damaged, or of another tokenizer than asked for.
    """
    if not Path(path).exists():
        fit_tokenizer(jax.random.key(0), source, size, frame_rate).save(path)
    found = SemanticTokenizer.load(path)
    if (found.size, found.frame_rate, found.rate) != (size, frame_rate, source.rate):
        raise UserError(
            f"{path} has {found.size} tokens at {found.frame_rate:g} a second; choose another --out"
        )
    return found


def log_mel_frames(audio_SC: np.ndarray, rate: int, hop: int) -> np.ndarray:
    """Log-mel frames `[T, D]` of audio `[S, C]`, mixed, one in the middle of every `hop` samples.

    Audio is padded to whole seconds, so that clips of all lengths compile a few programs: frames
    beyond its end are of silence.
    """
    samples = -(-len(audio_SC) // rate) * rate
    samples = -(-samples // hop) * hop
    padded_S = np.zeros(samples, np.float32)
    padded_S[: len(audio_SC)] = audio_SC.mean(axis=1)
    return np.asarray(_frames(padded_S, rate, hop))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _frames(audio_S, rate: int, hop: int):
    # Frames are centred on multiples of the hop: from half a hop on they are in its middle.
    found = spectral.log_mel(audio_S[hop // 2 :], rate, 2 * hop, hop, BANDS)
    return found[: len(audio_S) // hop]
