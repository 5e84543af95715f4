"""How good a codec or a token model is, beside Opus and MP3, in numbers and to be listened to."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rvq_jax.cli.terminal import command_line, say
from rvq_jax.errors import LeftOut, UserError


@dataclass(frozen=True)
class Evaluate:
    """Measures codecs or token models on audio, beside Opus and MP3; writes a report.

    Codecs: SI-SDR, mel and STFT distance, PESQ, STOI, ViSQOL and DNSMOS against bitrate, and pages
    for listening tests. Token models: held-out bits per frame, Fréchet distance of what they
    generate, agreement with captions. Means have 95 % intervals over clips. What is measured is
    kept: the same command goes on where it was stopped, and other codecs are added to it.

    rvq-jax evaluate codecs/mine codecs/encodec_24khz --data speech --signal speech \
--against opus:6 opus:12 mp3:32
    """

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ()
    """Codec folders; or folders of token models; or run folders. None to measure coders alone."""
    data: Path = Path("data")
    """Folder of audio files; for token models also what `rvq-jax data build --codes` made."""
    out: Path = Path("runs/evaluate")
    """Folder of results.json, report.html, abx.html, mushra.html and audio."""
    levels: tuple[int, ...] | None = None
    """Numbers of levels to decode. Default: 1, 2, 4 … and all."""
    against: tuple[str, ...] = ()
    """Coders to compare with, as opus:12 or mp3:64, in kbps."""
    signal: Literal["speech", "music"] = "music"
    """What the audio is: says which metrics there are, and how Opus is set."""
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
    json: bool = False
    """Print results.json to standard output at the end."""

    def run(self) -> dict:
        from rvq_jax.evaluate import folders

        began = time.perf_counter()
        settings = {"levels": self.levels, "against": self.against, "signal": self.signal}
        settings |= {"split": self.split, "piece": self.piece, "batch": self.batch}
        done = folders.evaluate_codecs(
            self.out, self.models, self.data, **settings, listened=self.listened
        )
        done = folders.stated(done, command_line(), began)
        self._write(done)
        left = done["data"].get("left_out")
        if left:
            total = done["data"]["files"] + len(left)
            raise LeftOut(list(left.items()), total, "the others are measured")
        return done

    def _write(self, done: dict) -> None:
        from rvq_jax.evaluate import answers, listening, report, table
        from rvq_jax.files import write_json

        if self.answers:
            done["listening"] = answers.read(self.answers, self.out)
        write_json(self.out / "results.json", done)
        say(self.json, table.table(done))
        try:
            pages = listening.write(self.out, done)  # first: the report has links to them
            places = [report.write(self.out, done), *pages]
        except UserError as error:
            say(self.json, f"no report: {error}")
            return
        for place in places:
            say(self.json, f"{place}")
