"""Discriminators kept in a codec's folder, so that others can go on from them."""

from pathlib import Path

import jax
from flax import nnx

from rvq_jax import builtin, files
from rvq_jax import config as configs
from rvq_jax.codec.discriminators import DiscriminatorsConfig, init_params
from rvq_jax.errors import UserError

FOLDER = "discriminators"


def save(config: DiscriminatorsConfig, params: nnx.State, codec: str | Path) -> None:
    """Writes them into the folder of the codec that they judge.

    Raises UserError if it cannot be written to.
    """
    config = {"model": FOLDER, **configs.to_dict(config)}
    files.save_folder(Path(codec) / FOLDER, config, params)


def load(codec: str | Path, config: DiscriminatorsConfig) -> nnx.State | None:
    """Those of a codec's folder; None if it has none.

    Raises UserError if they are not those of the config.
    """
    path = files.model_folder(builtin.folder(codec)) / FOLDER
    if not (path / "config.json").is_file():
        return None
    stated = files.load_config(path)
    stated.pop("model", None)
    there = configs.from_dict(DiscriminatorsConfig, stated, f"{path}/config.json")
    if changed := configs.differences(configs.to_dict(there), configs.to_dict(config)):
        raise UserError(
            f"{path} holds other discriminators ({'; '.join(changed[:3])}); give the config "
            "theirs, or move that folder away"
        )
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return files.load_weights(path, shapes)
