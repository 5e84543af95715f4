"""Files of torch.save made by hand, opcode by opcode: zips, and the kind before torch 1.6."""

import pickle
import struct
import zipfile
from pathlib import Path

from rvq_jax.convert import torch_file

DATA = struct.pack("<4f", 1, 2, 3, 4)


def op(value) -> bytes:
    """A value as opcodes, without the pickle's head and end."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    kind="torch FloatStorage", key="0", size=4, offset=0, shape=(4,), strides=(1,), signs=None
) -> bytes:
    """The opcodes that torch writes for a tensor."""
    storage = b"(" + op("storage") + b"c%b\n" % kind.replace(" ", "\n").encode()
    storage += op(key) + op("cpu") + op(size) + b"tQ"
    view = op(offset) + op(shape) + op(strides) + op(False) + op(None) + op(signs)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"tR"


def write_zip(path: Path, ops: bytes, data=DATA, **records) -> Path:
    """A file of torch.save with one storage and these opcodes as its value."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + ops + b".")
        file.writestr("archive/data/0", data)
        for name, content in records.items():
            file.writestr(f"archive/{name}", content)
    return path


def write_stream(path: Path, ops: bytes, data=DATA, size=4) -> Path:
    """The same as before torch 1.6; the storage of `tensor` needs a view, None."""
    parts = [pickle.dumps(part, 2) for part in (torch_file.MAGIC, torch_file.VERSION, {})]
    ops = ops.replace(b"tQ", b"NtQ")
    storages = pickle.dumps(["0"], 2) + struct.pack("<q", size) + data
    path.write_bytes(b"".join(parts) + b"\x80\x02" + ops + b"." + storages)
    return path
