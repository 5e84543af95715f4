"""The iterations of masked decoding: shares that stay masked, temperatures, guidance."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rvq_jax.typing import Array

Schedule = Literal["cosine", "linear", "power"]
COLDEST = 1e-2  # temperature under which a greedy choice's confidence is measured, if under its own


class Timetable(NamedTuple):
    """What each of I iterations does; an argument of programs, which depend on I alone."""

    level: Array  # [I] int32, the level it predicts
    share: Array  # [I], of what the level is to be given: what is masked again after it
    last: Array  # [I] bool, whether nothing of the level is masked after it
    temperature: Array  # [I], of sampling; 0 takes the largest logit
    noise: Array  # [I], scale of the Gumbel noise that is added to confidences
    score_temperature: Array  # [I], under which confidences are measured
    guidance: Array | None  # [I], weight of classifier-free guidance; None without


def masked_share(schedule: Schedule, u: Array, power: float = 2.0) -> Array:
    """The share of positions that are masked at progress u: 1 at 0, 0 at 1 (Chang et al. 2022).

    Args:
      schedule: cos(pi u / 2), 1 - u, or 1 - u ** power.
      u: any shape, in [0, 1].
      power: exponent of the schedule "power".

    Returns:
      Shares, of the shape of u.

    Raises:
      ValueError: another schedule.
    """
    if schedule == "cosine":
        return (jnp if isinstance(u, jax.Array) else np).cos(u * np.pi / 2)
    if schedule == "linear":
        return 1.0 - u
    if schedule == "power":
        return 1.0 - u**power
    raise ValueError(f"a schedule is cosine, linear or power; got {schedule!r}")


def timetable(
    iterations: Sequence[int],
    schedule: Schedule = "cosine",
    *,
    power: float = 2.0,
    first: int = 0,
    endpoint: bool = False,
    temperature: float = 1.0,
    anneal: bool = False,
    greedy_last: bool = True,
    confidence_temperature: float = 0.0,
    tempered_confidence: bool = False,
    guidance: float | tuple[float, float] | None = None,
) -> Timetable:
    """The iterations of a decode, level after level.

    SoundStorm has (16, 1, 1, …); MAGNeT (20, 10, 10, 10) with endpoint, anneal,
    tempered_confidence, temperature 3 and guidance (10, 1).

    Args:
      iterations: of each level, beginning with level `first`.
      schedule: of the share that is masked, see `masked_share`.
      power: exponent of the schedule "power".
      first: the first level that is decoded; those before it must be given.
      endpoint: the last iteration of a level begins at the schedule's end, as numpy.linspace has it
        (MAGNeT), rather than one step before it (MaskGIT).
      temperature: of sampling.
      anneal: let it fall to 0 within each level: i iterations before the last of n, i / n of it.
      greedy_last: the last iteration of each level takes the largest logits (SoundStorm).
      confidence_temperature: scale of the Gumbel noise on confidences at the beginning of a level;
        falls linearly to 0 at its last iteration.
      tempered_confidence: measure confidences under the temperature of sampling, not under 1.
      guidance: weight of classifier-free guidance; two: while all is masked, while nothing is.

    Returns:
      The timetable.

    Raises:
      ValueError: no levels, a level without iterations, numbers below 0.
    """
    if not len(iterations) or min(iterations) < 1:
        raise ValueError(f"every level needs at least 1 iteration; got {tuple(iterations)}")
    if first < 0:
        raise ValueError(f"levels begin at 0; got first level {first}")
    if min(temperature, confidence_temperature) < 0:
        raise ValueError("temperatures must be at least 0")
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Timetable._fields}
    for level, count in enumerate(iterations, first):
        left = np.arange(count)[::-1]  # iterations after this one
        masked = masked_share(schedule, np.linspace(0.0, 1.0, count, endpoint=endpoint), power)
        warmth = temperature * (left / count if anneal else np.ones(count))
        warmth = np.where((left == 0) & greedy_last, 0.0, warmth)
        parts["level"].append(np.full(count, level))
        parts["share"].append(np.append(masked[1:], 0.0))
        parts["last"].append(left == 0)
        parts["temperature"].append(warmth)
        parts["noise"].append(confidence_temperature * left / count)
        cool = np.maximum(warmth, COLDEST)
        parts["score_temperature"].append(cool if tempered_confidence else np.ones(count))
        if guidance is not None:
            most, least = guidance if isinstance(guidance, tuple) else (guidance, guidance)
            parts["guidance"].append(most * masked + least * (1.0 - masked))
    kinds = {"level": np.int32, "last": bool}
    columns = {
        name: np.concatenate(values).astype(kinds.get(name, np.float32)) if values else None
        for name, values in parts.items()
    }
    return Timetable(**columns)
