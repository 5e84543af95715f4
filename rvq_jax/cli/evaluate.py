"""How good a codec or a token model is, beside Opus and MP3, in numbers and to be listened to."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rvq_jax import builtin
from rvq_jax.cli.terminal import command_line, say, show
from rvq_jax.cli.texts import Precision
from rvq_jax.errors import LeftOut, UserError
from rvq_jax.evaluate.settings import GenerationSettings


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measures codecs or token models on audio, beside Opus and MP3; writes a report.

    Codecs: SI-SDR, mel and STFT distance, PESQ, STOI, ViSQOL and DNSMOS against bitrate, and pages
    for listening tests. Token models: held-out bits per frame, Fréchet distance of what they
    generate, agreement with captions. Means have 95 % intervals over clips. What is measured is
    kept: the same command goes on where it was stopped, and other codecs are added to it.

    rvq-jax evaluate codecs/mine codecs/encodec_24khz --data speech --signal speech \
--against opus:6 opus:12 mp3:32
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ()
    """Codec folders, builtin for the one that comes with rvq_jax; or folders of token models; or
    run folders. None to measure coders alone."""
    data: Path
    """Folder of audio files; for token models also what `rvq-jax data build --codes` made."""
    out: Path = Path("runs/evaluate")
    """Folder of results.json, report.html, abx.html, mushra.html and audio."""
    levels: tuple[int, ...] | None = None
    """Numbers of levels to decode. Default: 1, 2, 4 … and all."""
    against: tuple[str, ...] = ()
    """Coders to compare with, as opus:12 or mp3:64, in kbps."""
    signal: Literal["speech", "music"] = "music"
    """What the audio is: says which metrics there are, and how Opus is set."""
    metrics: tuple[str, ...] | None = None
    """Those to measure: si_sdr, mel, stft; of speech pesq, stoi, visqol_speech, dnsmos; of music
    visqol_audio. Default: all of the signal."""
    split: Literal["train", "valid", "test"] | None = None
    """Of metadata.csv, to take only its files. Default: all files."""
    piece: float = 10.0
    """Seconds that are coded and measured at once; longer files are cut."""
    batch: int = 4
    """Pieces that a codec takes at once, which changes no result."""
    listened: int = 8
    """Clips kept to be listened to, in the report and in the listening tests."""
    answers: tuple[Path, ...] = ()
    """Files that listeners downloaded from abx.html or mushra.html, to be added to the results."""
    embeddings: tuple[Path, ...] = ()
    """Of token models: Python files with embed(audio_S, rate), which gives features [M, D], or
    folders with real/*.npy and generated/*.npy, to measure Fréchet distances in."""
    speech: bool = False
    """Of models that speak: have them say held-out texts, and measure what PocketSphinx hears."""
    precision: Precision = "float32"
    """Of token models' weights and cache: bfloat16 takes half the memory, int8 weights a
    quarter, and time goes with it on a GPU or TPU."""
    generate: GenerationSettings = field(default_factory=GenerationSettings)
    json: bool = False
    """Print results.json to standard output at the end."""

    def run(self) -> dict:
        from rvq_jax.evaluate import folders

        began = time.perf_counter()
        if folders.are_codecs(self._paths):
            done, left = self._codecs()
        else:
            done, left = self._models()
        done = folders.with_provenance(done, command_line(), began)
        self._write(done)
        self._write_pages(done)
        if left is None:
            return done
        if self.json:  # what was measured is printed all the same
            show(json.dumps(done))
        raise left

    def _codecs(self) -> tuple[dict, LeftOut | None]:
        from rvq_jax.evaluate import folders

        for name in ("embeddings", "speech"):
            self._refuse(name, "codecs")
        if self.precision != "float32":
            raise UserError("--precision is not for codecs; leave it away")
        names = "levels", "against", "signal", "metrics", "split", "piece", "batch", "listened"
        settings = {name: getattr(self, name) for name in names}
        done = folders.evaluate_codecs(self.out, self._paths, self.data, **settings)
        left = list(done["data"]["left_out"].items())
        total = done["data"]["files"] + len(left)
        return done, LeftOut(left, total, "the others are measured") if left else None

    def _models(self) -> tuple[dict, LeftOut | None]:
        from rvq_jax.evaluate import folders

        for name in ("levels", "against", "metrics", "split", "answers"):
            self._refuse(name, "token models")
        own = {"embeddings": self.embeddings, "settings": self.generate, "speech": self.speech}
        own["precision"] = self.precision
        return folders.evaluate_models(self.out, self._paths, self.data, **own)

    @property
    def _paths(self) -> tuple[Path, ...]:
        return tuple(map(builtin.folder, self.models))

    def _refuse(self, name: str, what: str) -> None:
        if getattr(self, name):
            raise UserError(f"--{name} is not for {what}; leave it away")

    def _write(self, done: dict) -> None:
        from rvq_jax.evaluate import answers, table
        from rvq_jax.files import write_json

        if self.answers:
            done["listening"] = answers.read(self.answers, self.out)
        write_json(self.out / "results.json", done)
        say(self.json, table.table(done))

    def _write_pages(self, done: dict) -> None:
        from rvq_jax.evaluate import listening, report

        try:
            pages = listening.write(self.out, done)  # first: the report has links to them
            places = [report.write(self.out, done), *pages]
        except UserError as error:
            kept = f"{self.out / 'results.json'} is there, a report is not"
            raise UserError(f"{kept}: {error}") from error
        for place in places:
            say(self.json, f"{place}")
