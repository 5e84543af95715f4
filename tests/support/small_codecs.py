"""Codecs small enough to run whole from the command line, and files as other projects write."""

import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import jax
import numpy as np

import rvq_jax as rj
from rvq_jax import files
from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.dac import DACConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.convert import folder, layout
from rvq_jax.systems import codec as codecs

RATE = 600
SMALL = {"dim": 6, "filters": 4, "ratios": (3, 2), "kernel": 5, "last_kernel": 3, "lstm_layers": 1}


def seanet(channels: int = 1, **changes) -> SEANetConfig:
    return SEANetConfig(channels=channels, **SMALL | changes)


GROUPED = {"causal": False, "norm": "time_group_norm"}
PARTS = {"normalize": True, "segment": 0.4, "overlap": 0.1}
CONFIGS = {
    "mono": CodecConfig(RATE, seanet(), levels=3, codebook_size=16),
    "stereo": CodecConfig(RATE, seanet(2, **GROUPED), levels=3, codebook_size=16, **PARTS),
    "dac": DACConfig(RATE, (2, 4), 4, 16, 16, levels=3, codebook_size=16, code_dim=3),
    # No power of two: transformers has no words for it.
    "own": CodecConfig(RATE, seanet(), levels=2, codebook_size=17),
}


def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each codec, untrained; made once, for it takes seconds."""
    base = tmp_path_factory.getbasetemp() / "small_codecs"
    for seed, (name, config) in enumerate(CONFIGS.items()):
        if not (base / name).exists():
            rj.Codec.init(config, jax.random.key(seed)).save(base / name)
    return {name: base / name for name in CONFIGS}


def ecdc_bytes(name: str, samples: int, segments: list[tuple[float | None, np.ndarray]]) -> bytes:
    """An .ecdc file of codes `[K, F]` and scales, or None."""
    said = {"m": name, "al": samples, "nc": len(segments[0][1]), "lm": False}
    text = json.dumps(said).encode()
    data = struct.pack("!4sBI", b"ECDC", 0, len(text)) + text
    for scale, codes_KF in segments:
        data += b"" if scale is None else struct.pack("!f", scale)
        number = sum(int(code) << 10 * i for i, code in enumerate(codes_KF.T.reshape(-1)))
        data += number.to_bytes(-(-10 * codes_KF.size // 8), "little")
    return data


def dac_bytes(codes_CKF: np.ndarray, samples: int, rate: int, frames: int | None = None) -> bytes:
    """A .dac file; frames: of each window, if it was coded in windows."""
    metadata = {
        "input_db": np.float32([-20.0]),
        "original_length": samples,
        "sample_rate": rate,
        "chunk_length": frames or codes_CKF.shape[2],
        "channels": len(codes_CKF),
        "padding": frames is None,
        "dac_version": "1.0.0",
    }
    file = io.BytesIO()
    value = {"codes": codes_CKF.astype(np.uint16), "metadata": metadata}
    np.save(file, np.array(value, object), allow_pickle=True)
    return file.getvalue()


def torch_bytes(
    weights: dict[str, np.ndarray], beside: dict | None = None, key: str = "state_dict"
) -> bytes:
    """A file of torch.save: a state dict, or one under `key` beside other things."""

    def op(value) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    def tensor(number: int, array: np.ndarray) -> bytes:
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = b"(" + op("storage") + b"ctorch\nFloatStorage\n" + op(str(number)) + op("cpu")
        storage += op(array.size) + b"tQ"
        view = op(0) + op(array.shape) + op(strides) + op(False) + op(None)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"tR"

    arrays = {name: np.ascontiguousarray(array, "<f4") for name, array in weights.items()}
    items = [op(name) + tensor(i, array) for i, (name, array) in enumerate(arrays.items())]
    ops = b"}(" + b"".join(items) + b"u"
    if beside is not None:
        rest = [op(name) + op(value) for name, value in beside.items()]
        ops = b"}(" + op(key) + ops + b"".join(rest) + b"u"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("archive/data.pkl", b"\x80\x02" + ops + b".")
        for i, array in enumerate(arrays.values()):
            opened.writestr(f"archive/data/{i}", array.tobytes())
    return file.getvalue()


# Names of a codec's weights as EnCodec's own files have them.
ENCODEC = [
    (r"^(encoder|decoder)\.layers\.", r"\1.model."),
    (r"\.conv\.", ".conv.conv."),
    (r"\.layers\.(\d+)\.codebook\.", r".vq.layers.\1._codebook."),
]


def weights(codec: rj.Codec) -> dict[str, np.ndarray]:
    """A codec's tensors under transformers' names."""
    leaves = {
        codecs._short(name): leaf
        for name, leaf in files.named(
            {"params": codec.params, "quantizer": codec.quantizer}
        ).items()
    }
    return layout.write(folder.module_of(codec.config).layout(codec.config), leaves)


def renamed(tensors: dict, rules: list) -> dict:
    found = {}
    for name, value in tensors.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = value
    return found
