"""What a codec has to reach: Opus and MP3 on the held-out speech and music, in every metric.

Beside them the codec of the quickstart, trained for minutes on spectral losses alone: the distance
still to go. All are measured on the same 10 s pieces, mixed to one channel, for that is what the
codec takes. It goes on where it was stopped, and codecs that are named are added.

Command:  python experiments/codec/corpus.py --out runs/corpus --audio FOLDER --pieces
          python experiments/codec/baselines.py --pieces runs/corpus/heldout
Needs:    pip install 'rvq_jax[metrics,report]'
Time:     half an hour on two cores, of which eight minutes train the quickstart's codec
Expect:   PESQ and ViSQOL of Opus rise with its bitrate, and the quickstart's codec is far below it
          on speech. On music ViSQOL and STFT distance put it above Opus at 6 and 8 kbps, which has
          no upper band there; SI-SDR and mel distance do not
"""

import argparse
import time
from pathlib import Path

import sections

from rvq_jax.evaluate import folders, report, table
from rvq_jax.files import write_json
from rvq_jax.study import study_codec

AGAINST = ("opus:6", "opus:8", "opus:12", "opus:24", "mp3:16", "mp3:32", "mp3:64")


def quickstart(folder: Path) -> Path:
    """The folder of the quickstart's codec, which is trained if it is not there."""
    place = folder / "quickstart"
    if not (place / "config.json").exists():
        study_codec(folder / "training")[0].save(place)
    return place


def evaluate(out: Path, codecs: list[Path], data: Path, signal: str) -> dict:
    """The results of codecs and coders on one folder, with its report."""
    began = time.perf_counter()
    done = folders.evaluate_codecs(out, codecs, data, against=AGAINST, signal=signal)
    done["data"]["folder"] = f"held-out {data.name}"
    command = f"python experiments/codec/{Path(__file__).name}"
    done = folders.with_provenance(done, command, began)
    write_json(out / "results.json", done)
    report.write(out, done)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pieces", type=Path, required=True, help="held-out pieces of corpus.py")
    parser.add_argument("--out", type=Path, default=Path("runs/codec"), help="their evaluations")
    parser.add_argument("codecs", type=Path, nargs="*", help="codec folders to measure beside")
    arguments = parser.parse_args()
    codecs = [quickstart(arguments.out), *arguments.codecs]
    parts = []
    for signal in ("speech", "music"):
        done = evaluate(arguments.out / signal, codecs, arguments.pieces / signal, signal)
        text = table.markdown(done).replace("\n## ", "\n### ")
        parts.append(text.replace("# Quality of codecs", f"## {signal.capitalize()}", 1))
        print(table.table(done))
    sections.write(
        "baselines", "\n".join(["# What a codec has to reach", "", *_described(), "", *parts])
    )


def _described() -> list[str]:
    """What was done and found, from the head of this file."""
    first, _, rest = __doc__.partition("\n\n")
    text, _, more = rest.partition("\n\nCommand:")
    expected = " ".join(more.partition("Expect:")[2].split())
    return [first, "", text, "", f"{expected}."]


if __name__ == "__main__":
    main()
