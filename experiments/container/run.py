"""The size of .rvq files, packed and entropy coded, against their raw bits and against .dac files.

On every folder of audio the quickstart's codec is trained; it encodes every file of the folder, and
the codes are stored in each way. A .dac file keeps 16 bits for each code in a pickled array; its
size here is that of such a file of the same codes.

Command:  python experiments/container/run.py --data FOLDER …
Time:     about four minutes for 20 minutes of audio on two cores, of which three train the codec
Expect:   entropy coding takes a few per cent off the raw bits of long files, and .dac files are
          more than twice as large; a second's codes weigh no more than what is around them
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rvq_jax import Codec, files, machine
from rvq_jax.audio import io as audio_io
from rvq_jax.offline import encode_file, read_write
from rvq_jax.study import StudyConfig, study_codec

HERE = Path(__file__).parent


def sizes(codec: Codec, folder: Path) -> dict:
    """Bytes of a folder's codes, stored in each way, one file for each file."""
    paths = [p for p in sorted(folder.rglob("*")) if p.suffix in audio_io.SUFFIXES]
    found = {"files": len(paths), "seconds": 0.0, "raw": 0.0, "packed": 0, "entropy": 0, "dac": 0}
    coding = 0.0
    for path in tqdm(paths, desc=folder.name, unit="file"):
        audio_SC = encode_file.read_audio(codec, path)
        coded = codec.encode(audio_SC[None], chunk=10.0)
        found["seconds"] += coded.samples / codec.config.rate
        found["raw"] += coded.codes.size * np.log2(codec.config.codebook_size) / 8
        for way in ("packed", "entropy"):
            began, buffer = time.perf_counter(), io.BytesIO()
            read_write.write(buffer, codec, coded, entropy=way == "entropy")
            coding += (time.perf_counter() - began) * (way == "entropy")
            found[way] += len(buffer.getvalue())
        found["dac"] += as_dac(coded.codes, coded.samples)
    return found | {"coding_seconds_per_second": coding / found["seconds"]}


def as_dac(codes, samples: int) -> int:
    """Bytes of a .dac file of the same codes."""
    buffer = io.BytesIO()
    metadata = {
        "input_db": np.zeros(1, np.float32),
        "original_length": samples,
        "sample_rate": 16_000,
        "chunk_length": codes.shape[2],
        "channels": 1,
        "padding": True,
        "dac_version": "1.0.0",
    }
    stored = {"codes": np.asarray(codes, np.uint16), "metadata": metadata}
    np.save(buffer, stored, allow_pickle=True)
    return len(buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/container"), help="their runs")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of audio")
    arguments = parser.parse_args()
    rows = {}
    for folder in arguments.data:
        codec, _ = study_codec(arguments.out / folder.name, folder)
        rows[folder.name] = sizes(codec, folder)
    config = StudyConfig().codec.codec
    raw_kbps = codec.kbps()
    lines = [
        "# The size of .rvq files",
        "",
        f"{config.levels} levels of {config.codebook_size} codes, {config.frame_rate:g} frames per "
        f"second, {raw_kbps:.2f} kbps raw. Sizes are shares of the raw bits, one file per "
        "audio file, all that a file holds included; coding is its time over that of the audio.",
        "",
        "| audio | files | minutes | packed | entropy coded | .dac | coding |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        shares = [f"{row[way] / row['raw']:.3f}" for way in ("packed", "entropy", "dac")]
        minutes = f"{row['seconds'] / 60:.1f}"
        coding = f"{row['coding_seconds_per_second']:.3f}"
        lines.append("| " + " | ".join([name, str(row["files"]), minutes, *shares, coding]) + " |")
    lines += ["", f"Commit {machine.commit()}, {machine.machine()['cpu']}."]
    with files.writing(HERE / "RESULTS.md") as path:
        path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
