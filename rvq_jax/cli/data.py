"""`rvq-jax data build`: from audio to datasets and codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rvq_jax.cli.terminal import say
from rvq_jax.errors import UserError


@dataclass(frozen=True)
class Data:
    """Builds a dataset: audio files (+ metadata.csv) → ArrayRecord, resampled and mixed.

    With --codes it is also encoded, once: token models train on train.npz, and are evaluated on
    heldout.npz, the valid and test clips.
    """

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of audio; none for the built-in corpus. A file of it that cannot be used is left out,
    and named at the end, with exit code 2."""
    out: Path = Path("runs/dataset")
    """Where the dataset goes."""
    rate: int | None = None
    """Samples per second of the dataset; files of other rates are resampled. Default: 16000, or
    the codec's."""
    channels: int | None = None
    """Channels of the dataset; files of other counts are mixed. Default: 1, or the codec's. Two
    with a codec of one are encoded apart, as stereo MusicGen has them."""
    piece: float = 10.0
    """Seconds; longer files are stored in pieces of this length, and so are codes: no crop that
    is trained on can be longer."""
    codes: str | None = None
    """Folder of a codec, or of a MusicGen for its codec, to encode the dataset with; builtin for
    the codec that comes with rvq_jax."""
    melody: int | None = None
    """Pitch classes to keep the melody in beside the codes, 12 for MusicGen-melody. Default: none
    is kept."""
    semantic: str | None = None
    """Semantic tokens to keep beside the codes, for SoundStorm: kmeans for clusters of log-mel
    frames, fitted on train; or a folder of `<record name>.npy` with a semantic.json of their size
    and frame_rate. Default: none are kept."""
    semantic_size: int = 512
    """How many of kmeans there are."""
    semantic_rate: float = 25.0
    """How many of kmeans a second has; the codec's frame rate is a multiple of it."""
    strict: bool = False
    """Look at every file first, and write nothing if one cannot be used."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        from rvq_jax import files
        from rvq_jax.data import builder
        from rvq_jax.train import codes

        files.check_folder(self.out, ours=("*", "*/"))
        if self.codes is None and self.semantic is not None:
            raise UserError("semantic tokens are kept beside codes; give a codec with --codes")
        codec = None if self.codes is None else codes.load_codec(self.codes)
        rate, channels = self.rate or 16_000, self.channels or 1
        if codec is not None:
            rate, channels = codes.sound_of(codec, self.rate, self.channels)
        settings = {"piece": self.piece, "strict": self.strict}
        path = builder.build(self.folder, self.out, rate, channels, **settings)
        result: dict = {"dataset": str(path)}
        say(self.json, f"dataset: {path}")
        semantic = None if self.semantic is None else self._semantic(path, codec)
        for split in ("train", "heldout") if codec is not None else ():
            cache = path / f"{split}.npz"
            records = builder.open_split(path, split)
            made = codes.cached_codes(cache, codec, records, split, self.melody, semantic)
            minutes = sum(x.shape[1] for x in made.codes) / made.frame_rate / 60
            result[split] = {"codes": str(cache), "records": len(made), "minutes": minutes}
            say(self.json, f"codes: {cache}, {len(made)} records, {minutes:.1f} minutes")
        if self.folder is not None and (left := builder.left_out(path)):
            raise left
        return result

    def _semantic(self, path: Path, codec):
        """What gives semantic tokens; k-means is fitted if it was not."""
        from rvq_jax.data import builder
        from rvq_jax.data.semantic import open_tokens
        from rvq_jax.systems.semantic_tokenizer import cached_tokenizer
        from rvq_jax.train import codes

        if self.semantic != "kmeans":
            return open_tokens(self.semantic)
        codes.frames_of_token(codec, self.semantic_rate)
        size, rate = self.semantic_size, self.semantic_rate
        tokenizer = cached_tokenizer(
            path / "semantic.npz", builder.open_split(path, "train"), size, rate
        )
        say(self.json, f"semantic tokens: {size} of log-mel frames, {rate:g} a second")
        return tokenizer
