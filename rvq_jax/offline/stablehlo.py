"""A codec as StableHLO: programs and weights that run without this package.

A folder holds one program per file (`jax.export`, for CPU, CUDA and TPU alike), weights.npz and
artefact.json. Each program takes a list of the weights' arrays in their order in the file, then its
input. With `program = jax.export.deserialize(bytes)`, `program.call(weights, audio)` gives codes:

encode         audio [B, S, C] → codes [B, K, F]
decode         codes [B, K, F] → audio [B, F · hop, C]
encode_first   audio of `first_frames` → codes, states      causal codecs only: the first block of a
decode_first   codes of `first_frames` → audio, states      stream, and every block after that with
encode_step    audio of one frame, states → codes, states   the states that the one before gave
decode_step    codes of one frame, states → audio, states
"""

import json
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from rvq_jax import files
from rvq_jax.codec import autoencoder, stream
from rvq_jax.errors import UserError
from rvq_jax.systems.codec import Codec

PLATFORMS = ("cpu", "cuda", "tpu")


def write(codec: Codec, path: str | Path, seconds: float = 10.0, batch: int = 1) -> None:
    """Writes a codec's programs and weights to a folder, whole or not at all.

    Args:
      codec: codec to export.
      path: folder to write.
      seconds: length of the items that `encode` and `decode` take, rounded to whole frames.
      batch: B, items that each program takes at once.

    Raises:
      UserError: when the codec codes segments apart (its loop over them is not one program), or the
        package that `jax.export` serializes with is missing.
    """
    config, params, quantizer = codec.prepared
    if config.segment:
        raise UserError("a codec of segments (EnCodec at 48 kHz) is no single program to export")
    weights, structure = jax.tree.flatten((params, quantizer))
    frames = max(1, round(seconds * config.frame_rate))
    first = stream.first_frames(config)

    def run(function):
        """The function of config, parameters and quantizer as one of a list of weights."""

        def program(weights, *inputs):
            params, quantizer = jax.tree.unflatten(structure, weights)
            return function(config, params, quantizer, *inputs)

        return program

    def audio(frames):
        return jax.ShapeDtypeStruct((batch, frames * config.hop, config.channels), jnp.float32)

    def codes(frames):
        return jax.ShapeDtypeStruct((batch, config.levels, frames), jnp.int32)

    programs = {
        "encode": (run(autoencoder.encode), audio(frames)),
        "decode": (run(autoencoder.decode), codes(frames)),
    }
    if config.causal:
        for name, function, block in (
            ("encode", stream.encode_step, audio),
            ("decode", stream.decode_step, codes),
        ):
            begin = run(lambda *x, function=function: _flat(function(*x[:3], None, *x[3:])))
            _, states = jax.eval_shape(begin, weights, block(first))
            tree = jax.tree.structure(jax.eval_shape(_states(run(function)), weights, block(first)))

            def step(config, params, quantizer, x, states, function=function, tree=tree):
                states = jax.tree.unflatten(tree, states)
                return _flat(function(config, params, quantizer, states, x))

            programs[f"{name}_first"] = begin, block(first)
            programs[f"{name}_step"] = run(step), block(1), states
    about = {
        "rate": config.rate,
        "hop": config.hop,
        "levels": config.levels,
        "codebook_size": config.codebook_size,
        "batch": batch,
        "frames": frames,
        "first_frames": first,
        "programs": list(programs),
        "platforms": PLATFORMS,
        "jax": jax.__version__,
    }
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in weights]
    with files.writing_folder(path) as folder:
        for name, (program, *inputs) in programs.items():
            exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(shapes, *inputs)
            (folder / f"{name}.stablehlo").write_bytes(_serialized(exported))
        np.savez(folder / "weights.npz", *map(np.asarray, weights))
        (folder / "artefact.json").write_text(json.dumps(about, indent=2) + "\n")


def _states(program):
    return lambda weights, x: program(weights, None, x)[1]


def _flat(result: tuple) -> tuple:
    """The states as a list, which needs no class of this package to be read."""
    return result[0], jax.tree.leaves(result[1])


def _serialized(exported: jax.export.Exported) -> bytes:
    try:
        return exported.serialize()
    except ImportError as error:
        raise UserError(
            "StableHLO is written with the flatbuffers package; pip install 'rvq_jax[export]'"
        ) from error
