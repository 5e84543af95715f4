"""Readers of files of other projects and of our own: torch, safetensors, .dac, .ecdc, .rvq, npz."""

import io
import json
import struct
import zlib
from pathlib import Path

import jax
import numpy as np
import structure
from foreign_codes import descript, ecdc_bytes, saved
from harness import Target
from rvq_files import draw, make, written
from safetensors.numpy import save
from torch_files import op, tensor, write_stream, write_zip

from rvq_jax import files
from rvq_jax.convert import dac_file, ecdc, names, tensors, torch_file
from rvq_jax.data.captions import CaptionStates
from rvq_jax.data.codes import CodeSet
from rvq_jax.offline import dac_chunks, describe
from rvq_jax.rvqfile import container, header
from rvq_jax.rvqfile.reader import Reader
from rvq_jax.systems.dac import dac_44khz
from rvq_jax.systems.semantic_tokenizer import SemanticTokenizer

# A state dict as descript's is: weight norm, and something beside it.
GAIN, INNER = b"encoder.block.0.weight_g", b"encoder.block.0.weight_v"


def _ops() -> bytes:
    named = [
        op(GAIN.decode()) + tensor(size=4, shape=(2, 1), strides=(1, 1)),
        op(INNER.decode()) + tensor(size=4, shape=(2, 2), strides=(2, 1)),
    ]
    inner = b"ccollections\nOrderedDict\n)R(" + b"".join(named) + b"u"
    beside = op("metadata") + b"}" + op("kwargs") + op({"sample_rate": 16_000}) + b"s"
    return b"}(" + op("state_dict") + inner + beside + b"u"


def _read_torch(path: Path):
    """As far as import goes with what it finds: to the names of each kind of codec."""
    found, beside = torch_file.read_state(path)
    for rename in (names.encodec, names.dac, names.mimi):
        rename(found)
    return beside


def _torch_zip(folder: Path) -> list[bytes]:
    return [write_zip(folder / "a.pt", _ops()).read_bytes()]


def _torch_stream(folder: Path) -> list[bytes]:
    return [write_stream(folder / "a.pt", _ops()).read_bytes()]


def _mutate_zip(data: bytes, rng) -> bytes:
    def change(name: str, content: bytes, rng) -> bytes:
        if name.endswith("pkl"):
            return structure.pickle(content, rng)
        return content[:-1] if not rng.integers(8) else content

    return structure.archive(data, rng, change)


def _mutate_stream(data: bytes, rng) -> bytes:
    """One of its five pickles, each of which begins with its protocol."""
    begins = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\x80\x02"]
    at = structure.pick(rng, begins)
    return data[:at] + structure.pickle(data[at:], rng)


def _dac(folder: Path) -> list[bytes]:
    codes = np.random.default_rng(0).integers(0, 1024, (1, 9, 8))
    return [saved(descript(codes)), saved(descript(codes, padding=True, input_db=-20.5))]


def _mutate_dac(data: bytes, rng) -> bytes:
    if rng.integers(2):
        at = data.index(b"\x80\x04")
        return data[:at] + structure.pickle(data[at:], rng)
    shape = [int(n) for n in rng.choice([0, 1, 2, 9, 8], 3)]
    value = descript(np.zeros(shape if rng.integers(2) else (1, 9, 8)))
    field = structure.pick(rng, list(value["metadata"]))
    others = [True, "1.0.0", "", None, np.float32([1e30]), np.float64([]), np.zeros((2, 2))]
    value["metadata"][field] = structure.pick(rng, [*structure.NUMBERS, *others])
    return saved(value)


def _read_dac(path: Path):
    found = dac_file.read(path)
    dac_chunks.check(dac_44khz(), found, path, None)
    return describe.file(path)


def _ecdc(folder: Path) -> list[bytes]:
    rng, fields = np.random.default_rng(0), {"al": 640, "nc": 2, "lm": False}
    codes = rng.integers(0, 1024, (2, 2))
    return [
        ecdc_bytes({"m": "encodec_24khz", **fields}, [(None, codes)]),
        ecdc_bytes({"m": "encodec_48khz", **fields}, [(0.5, codes)]),
    ]


def _mutate_ecdc(data: bytes, rng) -> bytes:
    _, _, length = ecdc.START.unpack_from(data)
    begin = ecdc.START.size + length
    said = structure.text(json.loads(data[ecdc.START.size : begin]), rng)
    scale = struct.pack("!f", structure.pick(rng, [0.0, -1.0, np.inf, np.nan, 1e38]))
    rest = scale + data[begin + 4 :] if rng.integers(2) else data[begin:]
    return ecdc.START.pack(b"ECDC", 0, len(said)) + said + rest


def _rvq(folder: Path) -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    for entropy in (False, True):
        head = make(entropy=entropy, samples=54)
        found.append(written(head, draw(rng, head, 9, scales=1)))
    silent = make((16, 1024, 1), segment_frames=40, samples=240)
    quiet = [container.Segment(np.zeros((3, 40), np.int32))]
    return [*found, written(silent, quiet)]


def _checked(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def _mutate_rvq(data: bytes, rng) -> bytes:
    """Numbers of the header, of a segment's head or of the index, with the check made right."""
    segment, end = data.index(container.SEGMENT), data.index(container.END)
    levels = Reader(io.BytesIO(data)).header.levels
    scales = container.HEAD.unpack_from(data, segment)[2]
    head = container.HEAD.size + container.PLANE.size * levels + 4 * scales + header.CHECK.size
    planes = segment + head
    match int(rng.integers(3)):
        case 0:
            body = _other(data[header.START.size : segment - 4], rng)
            start = header.START.pack(header.MAGIC, header.VERSION, len(body))
            return _checked(start + body) + data[segment:]
        case 1:
            body = data[segment : planes - 4]
            body = body[:4] + _other(body[4:], rng)
            return data[:segment] + _checked(body) * int(rng.choice([1, 9])) + data[planes:]
    body = container.END + _other(data[end + 4 : -container.LAST.size - 4], rng)
    index = _checked(body)
    return data[:end] + index + container.LAST.pack(len(index), container.TAIL)


def _other(body: bytes, rng) -> bytes:
    """With one number of 2, 4 or 8 bytes another, mostly at such a place."""
    width = int(rng.choice([2, 4, 8]))
    number = int(rng.choice([0, 1, 2, 255, 750, 65536, 2**24, 2**31, 2**32 - 1])) % 256**width
    at = int(rng.integers(max(1, len(body) - width))) // 2 * 2
    return body[:at] + number.to_bytes(width, "little") + body[at + width :]


def _read_rvq(path: Path):
    found = describe.file(path)
    data = path.read_bytes()
    assert len(list(Reader(io.BytesIO(data), 1))) == Reader(io.BytesIO(data)).count
    Reader(io.BytesIO(data)).read()
    return found


def _safetensors(folder: Path) -> list[bytes]:
    zeros = np.zeros((2, 2), np.float32)
    return [save({GAIN.decode(): zeros[:, :1].copy(), INNER.decode(): zeros, "a": np.ones(3)})]


def _mutate_safetensors(data: bytes, rng) -> bytes:
    length = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + length])
    if not rng.integers(3):
        kinds = ["F32", "BF16", "F16", "I64", "BOOL", "F8_E4M3", "F4", "C64", "U8", "X"]
        said[structure.pick(rng, list(said))]["dtype"] = structure.pick(rng, kinds)
        text = json.dumps(said).encode()
    else:
        text = structure.text(said, rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _read_safetensors(path: Path):
    found = tensors.read(path)
    for rename in (names.encodec, names.dac, names.mimi):
        rename(found)
    return tensors.take(found, {name: value.shape for name, value in found.items()}, path)


def _index(folder: Path) -> list[bytes]:
    return [json.dumps({"metadata": {}, "weight_map": {"a": "b.safetensors"}}).encode()]


def _read_index(path: Path):
    shard = path.with_name("b.safetensors")
    if not shard.exists():
        shard.write_bytes(save({"a": np.ones(3, np.float32)}))
    return tensors.load_folder(path.parent)


LIKE = {
    "a": jax.ShapeDtypeStruct((2, 3), np.float32),
    "b": {"c": jax.ShapeDtypeStruct((5,), np.float32), "d": jax.ShapeDtypeStruct((), np.int32)},
}


def _weights(folder: Path) -> list[bytes]:
    file = io.BytesIO()
    np.savez(file, **files.named(jax.tree.map(lambda x: np.ones(x.shape, x.dtype), LIKE)))
    return [file.getvalue()]


def _codes(folder: Path) -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    codes = [rng.integers(0, 16, (2, n)).astype(np.int32) for n in (7, 5)]
    melodies = [rng.integers(0, 12, n).astype(np.uint8) for n in (8, 6)]
    words = (["a", "b"], ["a slow piano", ""], ["", ""])
    semantics = [rng.integers(0, 9, n).astype(np.int32) for n in (4, 3)]
    for beside in (
        {},
        {"melodies": melodies, "melody_bins": 12, "melody_rate": 50.0},
        {"semantics": semantics, "semantic_size": 9, "semantic_ratio": 2},
    ):
        CodeSet(codes, *words, 50.0, 16, "0f", **beside).save(folder / "codes.npz")
        found.append((folder / "codes.npz").read_bytes())
    return found


def _semantic(folder: Path) -> list[bytes]:
    SemanticTokenizer(np.ones((3, 64), np.float32), 16_000, 25.0).save(folder / "semantic.npz")
    return [(folder / "semantic.npz").read_bytes()]


def _captions(folder: Path) -> list[bytes]:
    states = [np.ones((n, 3), np.float32) for n in (2, 0)]
    CaptionStates(["a", ""], states, "key").save(folder / "captions.npz")
    return [(folder / "captions.npz").read_bytes()]


TARGETS = {
    "torch_zip": Target(_torch_zip, "a.pt", _read_torch, _mutate_zip),
    "torch_before_1.6": Target(_torch_stream, "a.pt", _read_torch, _mutate_stream),
    "dac": Target(_dac, "a.dac", _read_dac, _mutate_dac),
    "ecdc": Target(_ecdc, "a.ecdc", describe.file, _mutate_ecdc),
    "rvq": Target(_rvq, "a.rvq", _read_rvq, _mutate_rvq),
    "safetensors": Target(_safetensors, "a.safetensors", _read_safetensors, _mutate_safetensors),
    "safetensors_index": Target(
        _index,
        tensors.INDEX,
        _read_index,
        lambda data, rng: structure.text(json.loads(data), rng),
    ),
    "weights_npz": Target(
        _weights, "weights.npz", lambda path: files.load_weights(path.parent, LIKE), structure.npz
    ),
    "code_cache": Target(_codes, "codes.npz", CodeSet.load, structure.npz),
    "semantic_tokenizer": Target(_semantic, "semantic.npz", SemanticTokenizer.load, structure.npz),
    "caption_cache": Target(_captions, "captions.npz", CaptionStates.load, structure.npz),
}
