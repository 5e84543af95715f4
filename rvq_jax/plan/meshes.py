"""Which meshes are worth a compile for a run on so many chips."""

from rvq_jax.axes import MESH
from rvq_jax.errors import UserError
from rvq_jax.train.runs import Run

# A mesh is taken without being asked for where states fill at most this share of the memory: that
# leaves room for activations, and an update reads and writes all of them, which on a chip that
# computes much for each byte takes as long as its share of a step's products.
SHARE = 0.05
MOST_TENSOR = 8  # most chips on tensor that are tried without being asked for


def parse(text: str) -> dict[str, int]:
    """Sizes of a mesh such as 'data=16,fsdp=4', those left out 1.

    Raises UserError if that is not how it is written.
    """
    sizes = dict.fromkeys(MESH, 1)
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in MESH or not value.isdigit() or int(value) < 1:
            raise UserError(f"mesh {text!r}: write it as data=16,fsdp=4,tensor=2")
        sizes[name] = int(value)
    return sizes


def possible(run: Run, chips: int) -> list[dict[str, int]]:
    """All meshes whose batch and model can be shared out evenly, fewest chips on tensor first.

    Raises UserError if there is none.
    """
    found = []
    for tensor in _divisors(chips):
        ways = chips // tensor
        shared = run.batch % (ways * run.optimizer.accumulate) == 0
        if tensor > MOST_TENSOR or not shared or not run.splits_over(tensor):
            continue
        found += [
            {"data": ways // fsdp, "fsdp": fsdp, "tensor": tensor} for fsdp in _divisors(ways)
        ]
    if not found:
        raise UserError(
            f"no mesh shares a batch of {run.batch} over {chips} chips evenly: change the batch, "
            "such as to a multiple of the chips"
        )
    return found


def default(run: Run, chips: int, state: float, memory: float | None) -> dict:
    """Chooses the mesh to take where none is asked for.

    It has as few chips on the axis tensor as the batch allows, and splits parameters over just so
    many that states leave room for activations; over as many as it can if no split leaves enough.

    Args:
      run: the training run.
      chips: number of chips.
      state: bytes of parameters, their running mean and the optimizer, on all chips together.
      memory: bytes of a chip's memory; None if not known, as if everything fits.

    Returns:
      Sizes of data, fsdp and tensor.

    Raises:
      UserError: when no mesh is possible.
    """
    meshes = possible(run, chips)
    fewest = meshes[0]["tensor"]
    for mesh in meshes:
        split = state / (mesh["fsdp"] * mesh["tensor"])
        if mesh["tensor"] == fewest and (memory is None or split <= SHARE * memory):
            return mesh
    return max(meshes, key=lambda mesh: (mesh["tensor"] == fewest, mesh["fsdp"]))


def candidates(run: Run, chips: int, state: float, memory: float | None) -> list[dict]:
    """Lists the meshes that a search compiles.

    They are the possible meshes where states fit and few chips are on the axis tensor; of the ways
    to split parameters every other one if there are many, least splitting first.

    Args:
      run: the training run.
      chips: number of chips.
      state: bytes of parameters, their running mean and the optimizer, on all chips together.
      memory: bytes of a chip's memory; None if not known, as if everything fits.

    Returns:
      Sizes of data, fsdp and tensor of each mesh.

    Raises:
      UserError: when no mesh is possible.
    """
    meshes = [
        mesh
        for mesh in possible(run, chips)
        if memory is None or state / (mesh["fsdp"] * mesh["tensor"]) <= 0.8 * memory
    ]
    kept, fewest = [], meshes[0]["tensor"] if meshes else 1
    for tensor in sorted({mesh["tensor"] for mesh in meshes}):
        if tensor > max(4, fewest):
            continue
        row = sorted((m for m in meshes if m["tensor"] == tensor), key=lambda m: m["fsdp"])
        powers = [m for m in row if m["fsdp"] & (m["fsdp"] - 1) == 0] or row
        kept += powers[::2] if len(powers) > 4 else powers
    return kept


def _divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
