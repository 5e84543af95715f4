"""`rvq-jax speak`: texts said in a voice."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rvq_jax.cli.terminal import say
from rvq_jax.cli.texts import PIPE, Precision, load_model, place_files, read_texts, refusals
from rvq_jax.errors import UserError


@dataclass(frozen=True)
class Speak:
    """Says texts with a model that was trained on speech, in the voice of a clip.

    One --text makes the file --out. Several, or --texts, make it a folder of 0.wav, 1.wav, … in
    their order, each as long as what is said. The same seed says them in the same way.

    rvq-jax speak --model runs/valle/model --text "three seven" --voice five.wav --voice-text five
    --out x.wav
    """

    model: Path
    """Model folder of `rvq-jax train`: a VALL-E, or a SoundStorm whose semantic model reads
    words."""
    out: Path
    """Audio file to write (.wav, .flac, .ogg), - for wav on standard output, or, for several
    texts, a folder."""
    text: tuple[str, ...] = ()
    """What to say, or several."""
    texts: Path | None = None
    """Or a text file, one on each line that is not empty; - for standard input."""
    voice: Path | None = None
    """Audio file of whom to speak as, a few seconds of any rate. Default: nobody in particular."""
    voice_text: str = ""
    """The words that are said in --voice."""
    seconds: float | None = None
    """Length at most; what has not ended by then is cut, and said to be. Default: as long as the
    model was trained on."""
    temperature: float = 1.0
    """Of sampling; 0 takes the most likely code."""
    top_k: int = 0
    """Most likely codes to sample from; 0 for all."""
    top_p: float = 0.0
    """Of these the fewest that have this probability together; 0 for all."""
    repetition: float | None = None
    """Share of the last ten codes above which one of them is sampled again from all, against
    speech that hangs; 0.1 is usual. Default: any."""
    seed: int = 0
    """Of the random draw: the same seed gives the same audio."""
    codec: str | None = None
    """Codec folder, or builtin, of a model that was trained without one beside it."""
    batch: int = 8
    """Texts said at a time: fewer take less memory."""
    precision: Precision = "float32"
    """Of the token model's weights and cache: bfloat16 takes half the memory, int8 weights a
    quarter, and time goes with it on a GPU or TPU."""
    format: Literal["wav", "flac", "ogg"] = "wav"
    """Of the files of a folder."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        words = read_texts(self.text, self.texts, "text", "text")
        single = self.texts is None and len(words) == 1
        targets = place_files(self.out, len(words), single, self.format, self.json, "texts")
        if self.voice is None and self.voice_text:
            raise UserError("--voice-text are the words of --voice: give it too, or leave both")
        if self.voice is not None and not self.voice_text.strip():
            raise UserError("--voice needs the words that are said in it: give --voice-text")
        if self.voice is not None and not self.voice.is_file():
            raise UserError(f"{self.voice} is not there; check the name")

        from rvq_jax.offline import speak

        model = load_model(self.model, self.codec, self.precision)
        if not hasattr(model, "speak"):
            raise UserError(f"{self.model} was not trained on speech; ask it by rvq-jax generate")
        options = {
            "seconds": self.seconds,
            "temperature": self.temperature,
            "top_k": self.top_k or None,
            "top_p": self.top_p or None,
            "repetition": self.repetition,
        }
        with refusals(self.model):
            voice = None
            if self.voice is not None:
                voice = speak.read_voice(model, self.voice, self.voice_text)
            found = speak.speak_files(
                model, words, targets, self.seed, voice, batch=self.batch, **options
            )
        rate = model.codec.config.rate
        place = sys.stderr if str(self.out) == PIPE else sys.stdout
        for text, target, one in zip(words, targets, found, strict=True):
            if not one.ended:
                say(
                    False,
                    f"rvq-jax: note: {text[:40]!r} did not end, and is cut at "
                    f"{one.samples / rate:.2f} s",
                    sys.stderr,
                )
            name = "standard output" if str(target) == PIPE else f"{target}"
            say(self.json, f"{name}: {one.samples / rate:.2f} s at {rate} Hz", place)
        return {
            "files": [str(target) for target in targets],
            "texts": words,
            "samples": [one.samples for one in found],
            "ended": [one.ended for one in found],
            "rate": rate,
            "channels": model.channels,
        }
