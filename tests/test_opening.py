"""What is no file is not read: a pipe would be waited for, a device has no end."""

import os

import numpy as np
import pytest
from refusals import refused

from rvq_jax import files
from rvq_jax.audio import io
from rvq_jax.convert import dac_file, ecdc, tensors, torch_file
from rvq_jax.data import folder as data_folder
from rvq_jax.data.captions import CaptionStates
from rvq_jax.data.codes import CodeSet
from rvq_jax.offline import describe

NO_FILES = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "link to nothing": lambda path: path.symlink_to("nothing"),
}


def shard(path):
    (path.parent / tensors.INDEX).write_text(f'{{"weight_map": {{"a": "{path.name}"}}}}')
    tensors.load_folder(path.parent)


READERS = {
    "config.json": lambda path: files.load_config(path.parent),
    "weights.npz": lambda path: files.load_weights(path.parent, {"a": np.zeros(1)}),
    "a.safetensors": shard,
    tensors.INDEX: lambda path: tensors.load_folder(path.parent),
    "metadata.csv": lambda path: data_folder.scan(path.parent),
    "codes.npz": CodeSet.load,
    "states.npz": CaptionStates.load,
    "a.ecdc": ecdc.read,
    "a.dac": dac_file.read,
    "a.pth": torch_file.read,
    "a.rvq": describe.file,
    "a.wav": io.read,
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_what_is_no_file(tmp_path, name, kind):
    NO_FILES[kind](tmp_path / name)
    refused(lambda: READERS[name](tmp_path / name), str(tmp_path))
