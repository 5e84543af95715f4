"""The commands: where the dataclass of each is, and its first line, so that a list imports none."""

import importlib

COMMANDS = {
    "quickstart": (
        "quickstart.Quickstart",
        "The pattern study end to end: which interleaving pattern for this audio, at what cost?",
    ),
    "data build": (
        "data.Data",
        "Builds a dataset: audio files (+ metadata.csv) → ArrayRecord, resampled and mixed.",
    ),
    "train": (
        "train.Train",
        "Trains what a config file describes: a codec on a dataset, or a token model on codes.",
    ),
    "sweep": (
        "sweep.Sweep",
        "Trains a config at every point of a grid and with every seed, and tables what came of it.",
    ),
    "compare": (
        "sweep.Compare",
        "Puts runs beside each other on one page: a table, their curves, what they sound like.",
    ),
    "evaluate": (
        "evaluate.Evaluate",
        "Measures codecs or token models on audio, beside Opus and MP3; writes a report.",
    ),
    "plan": (
        "plan.Plan",
        "Compiles a config's training step for a TPU topology, without a TPU; tells what it takes.",
    ),
    "generate": (
        "generate.Generate",
        "Generates audio for captions with a trained or imported model.",
    ),
    "speak": (
        "speak.Speak",
        "Says texts with a model that was trained on speech, in the voice of a clip.",
    ),
    "serve": (
        "serve.Serve",
        "Opens a page, for this machine only, that plays a clip while the model generates it.",
    ),
    "encode": (
        "codec.Encode",
        "Encodes audio to .rvq files: one, every one of a folder, or standard input.",
    ),
    "decode": (
        "codec.Decode",
        "Decodes .rvq files to audio of exactly the length that was encoded.",
    ),
    "info": ("codec.Info", "Tells what a file or a folder holds."),
    "import": (
        "codec.Import",
        "Turns another project's checkpoint into a model folder; no code of the file runs.",
    ),
    "export": ("codec.Export", "Writes a codec, or a MusicGen, for other tools to read."),
}


def load(name: str) -> type:
    """The dataclass of a command."""
    module, _, cls = COMMANDS[name][0].partition(".")
    return getattr(importlib.import_module(f"rvq_jax.cli.{module}"), cls)
