"""The packages of the corpus, and what each says of its files: title, author, licence."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CC0, BY, BY_SA, GPL = "CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0", "GPL-2.0-or-later"


class Said(NamedTuple):
    """What a package says of a file."""

    name: str  # in the corpus
    caption: str
    label: str
    speaker: str  # or composer, or who recorded it
    work: str  # what all its versions share, so that they fall on one side of a split
    licence: str = ""  # if it is not the package's


@dataclass(frozen=True)
class Package:
    """A Debian package with audio in it."""

    name: str
    kind: str  # speech or music
    files: str  # where its audio is
    what: str
    licence: str
    credit: str
    megabytes: int  # of the package and of what becomes of it
    describe: Callable[[Path, Path], Said]  # of the unpacked folder and a file in it
    left_out: frozenset[str] = frozenset()


# No voice is in these: they are one recording, coded anew for each language.
TONES = ("ascending-2tone", "descending-2tone", "beep", "beeperr", "confbridge-join")
TONES += ("confbridge-leave", "tt-monkeys", *(f"silence_{seconds}" for seconds in range(1, 11)))


def prompt(root: Path, path: Path) -> Said:
    """A prompt, its words from its name, its voice from the folder: it_IT_m_Carlo/digits/1.g722."""
    voice, *parts = path.relative_to(root / "usr/share/asterisk/sounds").with_suffix("").parts
    words = " ".join(parts).replace("-", " ").replace("_", " ")
    name = "_".join(parts)
    return Said(f"{name}.flac", words, voice.split("_")[0], voice, name)


def wesnoth(root: Path, path: Path) -> Said:
    """A work by the tags in its file."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        tags = file.copy_metadata()
    title, artist = tags.get("title", path.stem), tags.get("artist", "")
    return Said(path.name, f"{title}, orchestral game music", "orchestral", artist, path.stem)


def warzone(root: Path, path: Path) -> Said:
    """A work by the list of its album; an enhanced one is the same work as what it is made of."""
    album, title, artist, own = path.parent / "album.json", "Menu Theme", "Warzone 2100 Project", ""
    if album.is_file():
        tracks = json.loads(album.read_text())["tracks"]
        track = next(track for track in tracks if track["filename"] == path.name)
        title, artist = track["title"], track["author"]
    if artist == "LupusMechanicus" and path.stem != "track3_enhanced":
        own = f"{BY_SA} or {GPL}"
    caption, work = f"{title}, electronic game music", path.stem.removesuffix("_enhanced")
    return Said(path.name, caption, "electronic", artist, work, own)


COMPOSERS = {"hr3": "Shawn Parrotte", "hr-savino": "Will Savino", "hr-domina": "Lincoln Domina"}


def hyperrogue(root: Path, path: Path) -> Said:
    """A work by its name, whose beginning stands for its composer in the package's copyright."""
    begin, place = path.stem.rsplit("-", 1)
    return Said(path.name, f"{place}, game music", "game", COMPOSERS[begin], path.stem)


def sonic_pi(root: Path, path: Path) -> Said:
    """A sample by its name; the README links it to whoever recorded it."""
    readme = (path.parent / "README.md").read_text()
    links = re.findall(r"`:(\w+)`\s*-\s*\S*/people/([^/]+)/", readme)
    # The README writes perc_bell_2 for what the file calls perc_bell2.
    authors = {name.replace("_", ""): author.replace("%20", " ") for name, author in links}
    author = authors.get(path.stem.replace("_", ""), "freesound.org")
    words = path.stem.replace("_", " ")
    return Said(path.name, words, path.stem.split("_")[0], author, path.stem)


def _voice(code: str, language: str, licence: str, credit: str) -> Package:
    return Package(
        f"asterisk-core-sounds-{code}-g722",
        "speech",
        "usr/share/asterisk/sounds/*/**/*.g722",
        f"telephone prompts in {language}",
        licence,
        credit,
        45,
        prompt,
        frozenset(f"{name}.flac" for name in TONES),
    )


PACKAGES = (
    _voice("en", "American English", BY_SA, "Allison Smith (theivrvoice.com), Digium"),
    _voice("es", "Mexican Spanish", BY_SA, "Allison Smith (theivrvoice.com), Digium"),
    _voice("fr", "Canadian French", BY_SA, "June Wallack (junewallack.com), Digium, Unlimitel"),
    _voice("it", "Italian", BY, "Carlo Flora (carloflora.com), translated by Silvia Petrin"),
    _voice("ru", "Russian", BY, "provided by Maxim Topal (ivrvoice.ru)"),
    Package(
        "wesnoth-1.16-music",
        "music",
        "usr/share/games/wesnoth/*/data/core/music/*.ogg",
        "orchestral game music, Vorbis",
        GPL,
        "the composers in the files' tags, for The Battle for Wesnoth",
        310,
        wesnoth,
        frozenset({"silence.ogg"}),
    ),
    Package(
        "warzone2100-music",
        "music",
        "usr/share/games/warzone2100/music/**/*.opus",
        "electronic game music, Opus at 48 kbit/s",
        GPL,
        "Martin Severn, LupusMechanicus, Warzone 2100 Project",
        175,
        warzone,
    ),
    Package(
        "hyperrogue-music",
        "music",
        "usr/share/hyperrogue/music/*.ogg",
        "game music, Vorbis",
        BY_SA,
        "Shawn Parrotte, Will Savino, Lincoln Domina, for HyperRogue",
        130,
        hyperrogue,
    ),
    Package(
        "sonic-pi-samples",
        "music",
        "usr/share/sonic-pi/samples/*.flac",
        "drums, loops and single sounds",
        CC0,
        "the authors at freesound.org that its README links, for Sonic Pi",
        45,
        sonic_pi,
        # Copies of a recording that was sold, whatever the sample says of itself.
        frozenset({"loop_amen.flac", "loop_amen_full.flac"}),
    ),
)
