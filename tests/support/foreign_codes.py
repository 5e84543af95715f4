"""Files of codes as EnCodec and descript's DAC write them."""

import io
import json
import struct

import numpy as np


def ecdc_bytes(said: dict, segments: list[tuple[float | None, np.ndarray]]) -> bytes:
    """As the format is documented: bit by bit, so that it shares nothing with the reader."""
    text = json.dumps(said).encode()
    data = struct.pack("!4sBI", b"ECDC", 0, len(text)) + text
    for scale, codes_KF in segments:
        if scale is not None:
            data += struct.pack("!f", scale)
        number = sum(int(code) << 10 * i for i, code in enumerate(codes_KF.T.reshape(-1)))
        data += number.to_bytes(-(-10 * codes_KF.size // 8), "little")
    return data


def descript(codes_CKF: np.ndarray, **fields) -> dict:
    """What descript-audio-codec 1.0.0 gives to numpy.save."""
    metadata = {
        "input_db": np.float32([-23.5]),
        "original_length": 5000,
        "sample_rate": 48_000,
        "chunk_length": 72,
        "channels": len(codes_CKF),
        "padding": False,
        "dac_version": "1.0.0",
    }
    return {"codes": codes_CKF.astype(np.uint16), "metadata": metadata | fields}


def saved(value) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def npy(pickled: bytes) -> bytes:
    """A pickle of one's own below the head that numpy writes for objects."""
    return saved({}).split(b"\n", 1)[0] + b"\n" + pickled
