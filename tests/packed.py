"""What an installed rvq_jax holds and does, away from its clone: `packed.py ENVIRONMENT`.

tests/packed.sh runs it, by the environment's Python, without the network; held.txt names the files
of the package in the clone, which it must have.
"""

import importlib.metadata
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

import rvq_jax

LICENCES = {"LICENSE", "LICENSE-WEIGHTS"}
RATE = 24_000


def command(*words: str) -> str:
    return subprocess.run(["rvq-jax", *words], check=True, capture_output=True, text=True).stdout


def contents(environment: Path) -> None:
    package = Path(rvq_jax.__file__).parent
    assert package.is_relative_to(environment), package
    held = Path("held.txt").read_text().split()
    assert [name for name in held if not (package.parent / name).is_file()] == []
    files = importlib.metadata.files("rvq_jax")
    tops = {file.parts[0] for file in files}
    assert tops == {"rvq_jax", f"rvq_jax-{rvq_jax.__version__}.dist-info", ".."}, tops  # ..: bin
    licences = {file.name for file in files if "licenses" in file.parts}
    assert licences >= LICENCES, licences
    assert importlib.metadata.version("rvq_jax") == rvq_jax.__version__
    assert command("--version").strip() == f"rvq-jax {rvq_jax.__version__}"


def no_network() -> None:
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=5)
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise AssertionError("the network is there, and only this address is not") from None
    else:
        raise AssertionError("the network is there")


def round_trip() -> None:
    time = np.arange(2 * RATE) / RATE
    audio = 0.2 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 2 * time))
    soundfile.write("tone.wav", audio, RATE)
    command("encode", "tone.wav", "--codec", "builtin")
    assert "builtin-" in command("info", "tone.rvq")
    command("decode", "tone.rvq", "again.wav")
    again, rate = soundfile.read("again.wav")
    assert len(again) == round(len(audio) * rate / RATE)
    heard = np.abs(np.fft.rfft(again))
    assert abs(heard.argmax() * rate / len(again) - 440) < 5
    assert Path("tone.rvq").stat().st_size < Path("tone.wav").stat().st_size / 20


if __name__ == "__main__":
    contents(Path(sys.argv[1]).resolve())
    no_network()
    round_trip()
