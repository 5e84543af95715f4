"""xp.cfg, the text of the config that trained a token model of audiocraft's."""

from rvq_jax import config as configs
from rvq_jax import limits
from rvq_jax.errors import READING, UserError, shown

CONFIG = 1 << 17  # characters of an xp.cfg, ten times the published


def read(beside: dict, path) -> dict:
    """xp.cfg as a dict; empty if there is none. Raises UserError if it cannot be read."""
    import yaml

    text = beside.get("xp.cfg", "{}")
    if not isinstance(text, str):
        raise UserError(
            f"{path}: its xp.cfg is no text, as in a checkpoint of training; export it with "
            "audiocraft.utils.export.export_lm"
        )
    if len(text) > CONFIG:
        raise UserError(f"{path}: its xp.cfg has {len(text):,} characters, more than {CONFIG:,}")
    try:
        # Names for parts can make a thousand of each: merged, they fill memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it refers to parts of itself")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, *READING) as error:
        raise UserError(f"{path}: its xp.cfg is no YAML ({error}); get it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its xp.cfg holds no fields; get it again")
    return config


def section(config: dict, *names: str) -> dict:
    """What lies at a path in a config; empty if there is nothing."""
    for name in names:
        found = config.get(name)
        config = found if isinstance(found, dict) else {}
    return config


def check(config: dict, fixed: dict[tuple[str, ...], dict], path) -> None:
    """Raises UserError for a field that says otherwise than `fixed`; one left out says nothing."""
    for place, values in fixed.items():
        said = section(config, *place)
        for field, value in values.items():
            if said.get(field, value) != value:
                name, found = ".".join([*place, field]), shown(said[field])
                raise UserError(
                    f"{path}: {name} {found} in its xp.cfg is not supported, only {value!r}"
                )


def fields(cls, said: dict, path):
    """The fields of a dataclass that a section says, the others left out."""
    named = {name: said[name] for name in limits.kinds(cls) if name in said}
    return configs.from_dict(cls, named, f"{path}: its xp.cfg")
