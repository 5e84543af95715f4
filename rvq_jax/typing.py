"""The legend of shape letters, and the array aliases of public signatures.

| letter | meaning               | letter | meaning                                |
|--------|-----------------------|--------|----------------------------------------|
| B      | batch                 | K      | levels (codebooks, quantizers)         |
| S      | audio samples         | N      | codebook size (codes per level)        |
| C      | audio channels        | T      | sequence steps, after interleaving     |
| F      | frames (latent time)  | V      | vocabulary: N plus the special id      |
| D      | features              | H      | attention heads                        |
| L      | bytes, tokens of text | M      | vectors in a flat list (often B · F)   |
| P      | places before codes   | E      | features of a head, or of a text's     |

Inside numeric code an array's name ends with its shape: `codes_BKF`, `latents_BFD`.
"""

from typing import Annotated, Literal

import jax
import numpy as np

Array = jax.Array | np.ndarray
Dtype = Literal["float32", "bfloat16", "float16"]
Remat = Literal["nothing", "attention", "everything"]

Audio = Annotated[Array, "B S C", "float32 in [-1, 1]"]
Latents = Annotated[Array, "B F D", "float32"]
Codes = Annotated[Array, "B K F", "int32 in [0, N)"]
Tokens = Annotated[Array, "B K T", "int32 in [0, V); the special id N marks an empty place"]
Vectors = Annotated[Array, "M D", "float32"]
Key = Annotated[Array, "", "a typed key of jax.random.key"]
