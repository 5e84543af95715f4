"""Files of torch.save, of the zip kind and of the kind before torch 1.6, read without torch."""

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np

from rvq_jax import npz
from rvq_jax.convert import pickled
from rvq_jax.convert.pickled import Foreign
from rvq_jax.errors import UserError, reading, shown

ZIP = b"PK\x03\x04"
# The two numbers, each a pickle of its own, that begin a file of the older kind.
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001

KINDS = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool,
    "UntypedStorage": np.uint8,
}
# Tensors may share their numbers, or repeat them by a stride of 0: a state dict is at most so many
# times its file (weights that are tied, bfloat16 as float32), or so many bytes.
TIMES, SMALL = 8, 16 << 20
LONGEST_NAME = 512
LARGEST = 1 << 63  # of a size, a stride, an offset
# Where published files keep their state dict: audiocraft, descript, moshi.
INSIDE = ("best_state", "state_dict", "model")


def read(path: str | Path):
    """The value that torch.save wrote, its tensors as numpy arrays (bfloat16 as float32).

    Arrays are read-only, may share memory and may be strided. No code of the file runs: an object
    of a class that is not read becomes a `pickled.Foreign`, with its class's name and its state.
    Raises UserError if the file is not there, is another kind of file, is damaged, or holds
    tensors of a kind that is not read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there; check the name")
    with reading(path, "a file of torch.save", "get it again, or save its state dict alone"):
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP)) == ZIP
        return _read_zip(path) if is_zip else _read_stream(path.read_bytes())


def read_state(path: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors by name of a published file, and what it holds beside them.

    Its value is a state dict, or a dict with one under "best_state" (audiocraft), "state_dict"
    (descript) or "model" (moshi). Raises UserError as `read` does, or if there is none.
    """
    tree, beside = read(path), {}
    for key in INSIDE:
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            beside |= {name: value for name, value in tree.items() if name != key}
            tree = tree[key]
    if not isinstance(tree, dict):
        raise UserError(
            f"{path} holds no state dict but a {_kind(tree)}; save its state dict alone"
        )
    if isinstance(tree.get("pretrained"), str):
        raise UserError(
            f"{path} holds no weights, it only names {shown(tree['pretrained'])}; import that "
            "instead"
        )
    for name, value in tree.items():
        if not (isinstance(name, str) and isinstance(value, np.ndarray)):
            raise UserError(
                f"{path} holds no state dict: {shown(name)} is no tensor but a {_kind(value)}; "
                "save its state dict alone"
            )
        check_name(name, path)
    if sum(value.nbytes for value in tree.values()) > max(SMALL, TIMES * path.stat().st_size):
        raise UserError(
            f"{path} is damaged: its tensors repeat their numbers over {TIMES} times; get it again"
        )
    return dict(tree), beside


def check_name(name: str, path: str | Path) -> None:
    """Raises UserError for a tensor's name of a length that the rules of `names` would choke on."""
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"{path} is damaged: a tensor's name has {len(name)} characters; get it again"
        )


def _kind(value) -> str:
    return value.name if isinstance(value, Foreign) else type(value).__name__


def _read_zip(path: Path):
    """Records below one folder: data.pkl, and the bytes of storage k under data/k."""
    with path.open("rb") as opened, npz.open_zip(opened) as file:
        entries = file.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its records are compressed, which torch.save never does")
        # Entries that overlap could say the same bytes a million times over.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its records are larger than the file")
        names = {entry.filename for entry in entries}
        tops = [name.partition("/")[0] for name in names if name.partition("/")[2] == "data.pkl"]
        if len(tops) != 1:
            raise ValueError("it has no data.pkl")
        top = tops[0]
        if f"{top}/constants.pkl" in names:
            raise ValueError("it is a TorchScript program")
        # Files older than the record are all little.
        is_big = f"{top}/byteorder" in names and file.read(f"{top}/byteorder") == b"big"
        order = ">" if is_big else "<"
        arrays = {}

        def storage(saved) -> np.ndarray:
            dtype, key, size = _storage(saved, 5)
            if key not in arrays:
                data = file.read(f"{top}/data/{key}")
                if len(data) != size * dtype.itemsize:
                    raise ValueError(f"storage {shown(key)}: {len(data)} bytes, not {size} numbers")
                arrays[key] = dtype, _numbers(data, dtype, order)
            if arrays[key][0] != dtype:
                raise ValueError(f"storage {shown(key)} is of two kinds")
            return arrays[key][1]

        return pickled.load(io.BytesIO(file.read(f"{top}/data.pkl")), _call, storage)


def _read_stream(data: bytes):
    """Pickles of magic, version, machine, value and storage keys, then the storages, little."""
    stream = io.BytesIO(data)
    if pickled.load(stream) != MAGIC or pickled.load(stream) != VERSION:
        raise ValueError("it does not begin as one")
    pickled.load(stream)
    # The value comes first but needs the storages; a first reading finds only their kinds.
    start, kinds = stream.tell(), {}

    def kind(saved) -> None:
        dtype, key, _ = _storage(saved, 6)
        if kinds.setdefault(key, dtype) != dtype:
            raise ValueError(f"storage {shown(key)} is of two kinds")

    pickled.load(stream, persistent=kind)
    keys, arrays = pickled.load(stream), {}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its storages are no list of keys")
    for key in keys:
        dtype = kinds[key]
        size = int.from_bytes(stream.read(8), "little") * dtype.itemsize
        stored = stream.read(size)
        if len(stored) != size:
            raise ValueError(f"storage {shown(key)} has {len(stored)} of {size} bytes")
        arrays[key] = _numbers(stored, dtype, "<")
    stream.seek(start)
    return pickled.load(stream, _call, lambda saved: arrays[_storage(saved, 6)[1]])


def _storage(saved, length: int) -> tuple[np.dtype, str, int]:
    """Kind, key and number of elements, of the tuple that stands for a storage.

    Files of the older kind have one more entry, a view.
    """
    if not isinstance(saved, tuple) or len(saved) != length:
        raise ValueError("a storage that is none")
    _, kind, key, _, size, *view = saved
    if not isinstance(key, str):
        raise ValueError(f"the key {shown(key)} of a storage")
    if type(size) is not int or not abs(size) < LARGEST:
        raise ValueError(f"a storage of {shown(size)} numbers")
    if view and view[0] is not None:
        raise ValueError("a view of a storage, which torch has not written since 0.4")
    return _dtype(kind), key, size


def _dtype(kind) -> np.dtype:
    """Of the numbers in a storage class such as torch.FloatStorage."""
    name = kind.name if isinstance(kind, Foreign) else shown(kind)
    if name.rpartition(".")[2] not in KINDS:
        raise ValueError(f"a storage of a kind that is not read, {name}")
    return np.dtype(KINDS[name.rpartition(".")[2]])


def _numbers(data: bytes, dtype: np.dtype, order: str) -> np.ndarray:
    """A storage's bytes as `[N]`, read-only since tensors share it."""
    word = f"u{dtype.itemsize}"
    words = np.ndarray(len(data) // dtype.itemsize, order + word, data)
    array = words.astype(word, copy=False).view(dtype)
    if dtype == ml_dtypes.bfloat16:
        array = array.astype(np.float32)
    array.flags.writeable = False
    return array


def _tensor(storage, offset, shape, strides, _=None, __=None, signs=None) -> np.ndarray:
    """A view of a storage; numpy refuses one that reaches beyond it."""
    if not isinstance(storage, np.ndarray):
        raise ValueError("a tensor without a storage")
    if signs:
        raise ValueError("a tensor that is a lazy negative or conjugate")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ValueError(f"a tensor of shape {shown(shape)} and strides {shown(strides)}")
    for number in (offset, *shape, *strides):
        if type(number) is not int or not abs(number) < LARGEST:
            raise ValueError(f"a tensor with {shown(number)} for a number")
    if 0 in shape:
        return np.empty(shape, storage.dtype)
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [size * s for s in strides])


def _call(name: str, args: tuple):
    """What the pickle's calls become: tensors and state dicts, everything else inert."""
    if name in CALLS:
        return CALLS[name](*args)
    if name.startswith("torch.") and "_rebuild" in name:
        raise ValueError(f"a tensor of a kind that is not read, {name}")
    return Foreign(name, args)


# None of them copies what it is given: a pickle may give one thing a million times.
CALLS = {
    "collections.OrderedDict": lambda: OrderedDict(),
    "torch.Size": lambda shape: shape,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
