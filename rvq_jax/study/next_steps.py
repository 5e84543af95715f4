"""What could be done after a study: commands with its own paths."""

import shlex
from collections.abc import Sequence
from pathlib import Path

STUDY = "rvq-jax quickstart"
LONGER = 10  # times the updates of a study that shows what patterns can express
PROMPT = "a slow warm pad in D minor, 80 bpm"


def next_steps(run_dir: Path, results: dict, pattern: str | None) -> list[tuple[str, str]]:
    """Commands that run as they stand, but for the name of a folder of one's own.

    Args:
      run_dir: the study's folder; models that it does not hold are not spoken of.
      results: what results.json holds.
      pattern: the one to be heard; None for none.

    Returns:
      Pairs of what a command does and the command.
    """
    found = []
    model = run_dir / "models" / f"pattern={pattern},seed={results['seeds'][0]}"
    if pattern is not None and (model / "model").is_dir():
        words = ["rvq-jax", "generate", "--model", f"{model}", "--prompt", _caption(results)]
        words += ["--seconds", "4", "--out", f"{run_dir / 'heard.wav'}"]
        found.append((f"Hear what {pattern} makes of a caption", shlex.join(words)))
        words = ["rvq-jax", "evaluate", f"{model}", "--data", f"{run_dir / 'dataset'}"]
        words += ["--out", f"{run_dir / 'evaluation'}"]
        found.append(("Measure it further, with intervals and players", shlex.join(words)))
    command = results["command"]
    try:
        words = shlex.split(command) if command.startswith(f"{STUDY} ") else []
    except ValueError:
        words = []
    if not words:
        return found
    updates = f"{LONGER * results['patterns'][0]['updates']}"
    if len(results["seeds"]) < 2:
        more = _replaced(words, {"--seeds": ["0", "1", "2"], "--out": [f"{run_dir}_seeds"]})
        found.append(("See how training varies, with three seeds", more))
    longer = _replaced(words, {"--model.loop.steps": [updates], "--out": [f"{run_dir}_longer"]})
    found.append((f"See what patterns can express, trained {LONGER} times as long", longer))
    if results["data"]["name"] == "built-in":
        own = _replaced(words, {"--data": ["my_audio"], "--out": [f"{run_dir}_mine"]})
        found.append(
            ("Ask the same of audio of your own, for my_audio the name of its folder", own)
        )
    return found


def _caption(results: dict) -> str:
    """One that the study itself asked for."""
    groups = (x for x in results.get("samples", ()) if x["group"] == "generation")
    return next((group["title"] for group in groups), PROMPT)


def _replaced(words: Sequence[str], flags: dict[str, list[str]]) -> str:
    """The words of a command with some flags' values in place of those that they had."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0].replace("_", "-") in flags
        if not dropping:
            kept.append(word)
    return shlex.join([*kept, *(x for flag, values in flags.items() for x in (flag, *values))])
