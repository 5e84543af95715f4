"""The codec that comes with the library: its word, its version, and who reads files of older ones.

It is a codec folder like any other, with a card and the licence of its weights beside them. Until
rvq_jax 1.0 it is provisional: better weights replace it, and are another version.
"""

import os
from pathlib import Path

from rvq_jax.errors import UserError

WORD = "builtin"  # what stands for its folder, wherever a codec folder is asked for
FOLDER = Path(__file__).parent
VERSION = "builtin-1"  # in the files that it makes
FINGERPRINT = "14c0f5fea05c7dce04f62b1307f5ba67f86a0a319e7632f0db2c3fdcd79a0e53"  # of its weights
PROVISIONAL = True
# Whether audio is encoded by it where no codec is named: once it is better than Opus at 6 kbps and
# than its twin without discriminators (experiments/codec/RESULTS.md).
DEFAULT = False
LAST: dict[str, str] = {}  # earlier versions: the last rvq_jax that has each


def folder(place: str | Path) -> Path:
    """The folder that is meant: the built-in codec's by the word `builtin`, else a path, as
    `./builtin` is one."""
    return FOLDER if isinstance(place, str) and place == WORD else Path(place)


def default() -> str:
    """What audio is encoded by where no codec is named.

    Raises UserError as long as that is not the built-in codec.
    """
    if DEFAULT:
        return WORD
    raise UserError(
        f"name a codec with --codec: a folder, or {WORD} for the one that comes with rvq_jax, "
        "which is not yet as good as Opus at 6 kbps"
    )


def is_builtin(place: str | Path) -> bool:
    """Whether a folder is the built-in codec's, by its word or its path."""
    return os.path.abspath(folder(place)) == os.path.abspath(FOLDER)


def version_of(fingerprint: bytes) -> str | None:
    """The version that has these weights (`Codec.fingerprint`); None if it is not this one."""
    return VERSION if fingerprint.hex() == FINGERPRINT else None


def is_version(codec: str) -> bool:
    """Whether the codec that a file names is a version of the built-in one."""
    return codec.startswith(f"{WORD}-")


def who_reads(codec: str) -> str:
    """What decodes the files of a version, as a thing to do."""
    if codec == VERSION:
        return "give the built-in codec: leave --codec away"
    if codec in LAST:
        return f"rvq_jax {LAST[codec]} is the last that has it: install that to decode the file"
    return f"this rvq_jax has {VERSION}: install a newer one"


def status_of(codec: str) -> str:
    """Of a version, what its files can count on."""
    if codec != VERSION:
        return f"not in this rvq_jax; {who_reads(codec)}"
    if PROVISIONAL:
        return "provisional: before rvq_jax 1.0 another version may replace it"
    return "stable"
