"""What token models are asked to generate when they are measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GenerationSettings:
    """What is generated to be compared, and how."""

    clips: int = 32  # at most, and at most half of the held-out clips
    # Of a clip at most. None: as long as the clips, or as what every model can make.
    seconds: float | None = None
    batch: int = 8  # clips generated at a time
    # Weight of classifier-free guidance, 1 for none. None, here and below: as the kind of model was
    # published; for MusicGen 3, for MAGNeT from 10 to 1, for SoundStorm none.
    guidance_scale: float | None = None
    temperature: float | None = None  # of sampling; for MAGNeT 3, falling, for the others 1
    top_k: int | None = None  # most likely codes to sample from, 0 for all; for MusicGen 250
    top_p: float | None = None  # of these the fewest of this probability; for MAGNeT 0.9
    seed: int = 0  # of the draw of clips and of codes
