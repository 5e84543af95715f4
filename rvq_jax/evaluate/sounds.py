"""Sounds of a page, side by side: inside of it where they are few, else in files beside it."""

from collections.abc import Sequence
from pathlib import Path

from rvq_jax.audio import io, resample
from rvq_jax.evaluate import page, plots

INSIDE = 30 << 20  # bytes of audio that a page holds; more stays in the files beside it
SPECTROGRAMS = "Spectrograms of a clip share one scale of 60 dB; frequencies are on the mel scale."
BESIDE = "The sounds are in folders beside this page: keep them together."


def sounds(
    folder: Path, players: Sequence[dict], names: Sequence[str], title: str = "Sounds"
) -> list[str]:
    """Players of every clip: the original, then systems in the order of a table.

    Args:
      folder: of the page, to which paths are relative.
      players: dicts of file, original (a path or None), systems (paths by name), and maybe caption.
      names: of the systems, in order.
      title: of the section.

    Returns:
      Parts of a page in HTML: none where there is nothing to hear.

    Raises:
      UserError: a sound that is missing or that browsers do not play.
    """
    clips = [(player, paths) for player in players if (paths := _paths(player, names))]
    used = [folder / path for _, paths in clips for _, path in paths]
    for path in used:
        page.audio_type(path)
    # What is not there says so when it is read.
    outside = sum(path.stat().st_size for path in used if path.is_file()) > INSIDE
    sections = [_clip(folder, player, paths, outside) for player, paths in clips]
    if not sections:
        return []
    note = f"{SPECTROGRAMS} {BESIDE}" if outside else SPECTROGRAMS
    return [f"<h2>{title}</h2>", f"<p class='note'>{note}</p>", *sections]


def _paths(player: dict, names: Sequence[str]) -> list[tuple[str, str]]:
    order = {name: i for i, name in enumerate(names)}
    systems = sorted(player["systems"].items(), key=lambda item: order.get(item[0], len(order)))
    original = [] if player["original"] is None else [("original", player["original"])]
    return [*original, *systems]


def _clip(folder: Path, player: dict, paths: Sequence[tuple[str, str]], outside: bool) -> str:
    audio = [io.read(folder / path) for _, path in paths]
    rate = audio[0][1]
    mono = [resample.to_rate(x_SC.mean(1, keepdims=True), r, rate)[:, 0] for x_SC, r in audio]
    pictures = plots.spectrograms(mono, rate)
    sounds = [
        page.Player(name, page.address(path) if outside else page.audio_uri(folder / path), picture)
        for (name, path), picture in zip(paths, pictures, strict=True)
    ]
    return page.players(player["file"], player.get("caption", ""), sounds)
