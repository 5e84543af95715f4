"""`rvq-jax generate`: audio for captions."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rvq_jax.cli.terminal import say
from rvq_jax.cli.texts import (
    PIPE,
    Precision,
    load_model,
    longest,
    mesh_of,
    place_files,
    read_texts,
    refusals,
)
from rvq_jax.errors import UserError

DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Generate:
    """Generates audio for captions with a trained or imported model.

    One --prompt makes the file --out. Several, or --prompts, make it a folder of 0.wav, 1.wav, …
    in their order. The same seed gives the same audio; which prompts share a batch does not
    matter.

    rvq-jax generate --model musicgen_small --prompt "a slow piano" --seconds 10 --out x.wav
    """

    model: Path
    """Model folder: of `rvq-jax train` or `import` (MusicGen, SoundStorm, MAGNeT), or of
    transformers (MusicGen, its stereo and melody forms, AudioGen)."""
    out: Path
    """Audio file to write (.wav, .flac, .ogg), - for wav on standard output, or, for several
    prompts, a folder."""
    prompt: tuple[str, ...] = ()
    """Caption, such as "a slow warm pad in D minor, 80 bpm", or several; "" for none at all."""
    prompts: Path | None = None
    """Or a text file of captions, one on each line that is not empty; - for standard input."""
    seconds: float | None = None
    """Length. Models are best at the length they were trained at. Default: 10, or the model's
    window if that is shorter."""
    guidance_scale: float | None = None
    """Weight of classifier-free guidance, 1 for none. Default, here and below: as the kind of
    model was published, for MusicGen 3."""
    text_guidance_scale: float | None = None
    """Double guidance: the weight of the text over the melody, inside of --guidance-scale."""
    temperature: float | None = None
    """Of sampling; 0 takes the most likely code."""
    top_k: int | None = None
    """Most likely codes to sample from; 0 for all. Default of MusicGen: 250."""
    top_p: float | None = None
    """Of these the fewest that have this probability together; 0 for all."""
    iterations: tuple[int, ...] = ()
    """Of each level, for SoundStorm and MAGNeT: more take longer. Default: 16 1 1 … and
    20 10 10 …"""
    codec: str | None = None
    """Codec folder, or builtin, of a model that was trained without one beside it."""
    seed: int = 0
    """Of the random draw: the same seed gives the same audio."""
    melody: Path | None = None
    """Audio file whose melody is followed, by models that can; of any rate and channels."""
    continue_: Annotated[Path | None, tyro.conf.arg(name="continue")] = None
    """Audio file that is continued; --seconds count it in, and its beginning is as the codec
    keeps it."""
    stride: float | None = None
    """Seconds that every further window adds, for audio longer than the model's window; 18 is
    usual where that is 30."""
    stream: bool = False
    """Write the audio as it is generated, a second at a time: with --out - it can be played."""
    batch: int = 8
    """Prompts generated at a time: fewer take less memory."""
    precision: Precision = "float32"
    """Of the token model's weights and cache: bfloat16 takes half the memory, int8 weights a
    quarter, and time goes with it on a GPU or TPU."""
    devices: int | None = None
    """Devices that generate together, each its share of the prompts of a batch. Default: fsdp times
    tensor."""
    fsdp: int = 1
    """Devices that each parameter is split over; they share the prompts too."""
    tensor: int = 1
    """Devices that heads, feed-forwards and vocabulary are split over."""
    format: Literal["wav", "flac", "ogg"] = "wav"
    """Of the files of a folder."""
    json: bool = False
    """Print a machine-readable result."""

    def run(self) -> dict:
        prompts = read_texts(self.prompt, self.prompts, "prompt", "caption")
        single = self.prompts is None and len(prompts) == 1
        targets = place_files(self.out, len(prompts), single, self.format, self.json, "captions")
        for file in (self.melody, self.continue_):
            if file is not None and not file.is_file():
                raise UserError(f"{file} is not there; check the name")

        from rvq_jax.offline import generate

        mesh = mesh_of(self.devices, self.fsdp, self.tensor)
        model = load_model(self.model, self.codec, self.precision, mesh)
        config = model.codec.config
        seconds = self.seconds or longest(model, DEFAULT_SECONDS)
        if self.stream and config.segment:
            raise UserError(f"{self.model} codes segments apart and cannot --stream; leave it away")
        captions, cut = generate.read_captions(model, prompts)
        for line in cut:
            say(False, f"rvq-jax: note: {line}", sys.stderr)
        samples = _generated(self, model, captions, targets, seconds)
        length = samples / config.rate
        many = f", each of {len(targets)}" if self.out not in targets else ""
        name = "standard output" if str(self.out) == PIPE else f"{self.out}"
        place = sys.stderr if str(self.out) == PIPE else sys.stdout
        say(self.json, f"{name}: {length:.2f} s at {config.rate} Hz{many}", place)
        return {
            "files": [str(target) for target in targets],
            "prompts": prompts,
            "seconds": length,
            "samples": samples,
            "rate": config.rate,
            "channels": model.channels,
        }


def _generated(command: Generate, model, captions, targets: list[Path], seconds: float) -> int:
    """Generates the files; what does not fit the model is said in one line."""
    import jax

    from rvq_jax.offline import encode_file, generate

    options = {"stride": command.stride, "iterations": command.iterations or None}
    for name in ("guidance_scale", "text_guidance_scale", "temperature", "top_k", "top_p"):
        options[name] = getattr(command, name)
    _check_kind(command, model)
    if command.melody is not None:
        options["melody"] = encode_file.read_audio(model.codec, command.melody)[None]
    if command.continue_ is not None:
        options["prompt"] = generate.read_prompt(model, command.continue_, seconds)
    options = {name: value for name, value in options.items() if value is not None}
    key, options["stream"] = jax.random.key(command.seed), command.stream
    options["batch"] = command.batch
    with refusals(command.model):
        return generate.generate_files(model, captions, targets, seconds, key, **options)


def _check_kind(command: Generate, model) -> None:
    """Raises UserError for flags that mean nothing to this kind of model."""
    from rvq_jax.systems.musicgen import MusicGen

    if isinstance(model, MusicGen):
        idle = {} if model.config.melody_bins else {"melody": "follows no melody"}
        idle |= {} if model.config.melody_bins else {"text_guidance_scale": "follows no melody"}
        idle["iterations"] = "is decoded step by step"
    else:
        idle = dict.fromkeys(("melody", "text_guidance_scale"), "follows no melody")
        idle["stride"] = "is decoded whole"
    for name, why in idle.items():
        if getattr(command, name) not in (None, ()):
            flag, other = f"--{name.replace('_', '-')}", ""
            if "melody" in why:
                other = " or take a melody model"
            raise UserError(f"{command.model} {why}, so {flag} means nothing; leave it away{other}")
