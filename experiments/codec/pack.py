"""The built-in codec's folder from a trained one: `python experiments/codec/pack.py RUN`.

Writes config.json and the weights (float16) into rvq_jax/builtin, in transformers' format if it has
words for the codec, the discriminators it was trained against beside them, so that others can go on
from there, and the fingerprint of what the weights load as into its `FINGERPRINT`. Weights that a
released version had need another `VERSION`, and an entry in `LAST` for the one before;
`tests/systems/test_builtin.py` holds them together.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path

from rvq_jax import builtin
from rvq_jax.files import model_folder
from rvq_jax.systems import discriminators
from rvq_jax.systems.codec import Codec

WEIGHTS = ("weights.npz", "model.safetensors")  # of our format, of transformers'


def main() -> None:
    """Packs the codec of a run, or of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder, or codec folder")
    trained = model_folder(parser.parse_args().run)
    codec = Codec.load(trained)
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "codec")
        codec.save(made, dtype="float16")
        fingerprint = Codec.load(made).fingerprint().hex()
        for name in WEIGHTS:
            (builtin.FOLDER / name).unlink(missing_ok=True)
        for file in made.iterdir():
            shutil.copyfile(file, builtin.FOLDER / file.name)
    judges = builtin.FOLDER / discriminators.FOLDER
    shutil.rmtree(judges, ignore_errors=True)
    if (trained / discriminators.FOLDER).is_dir():
        shutil.copytree(trained / discriminators.FOLDER, judges)
    source = Path(builtin.__file__)
    line = f'FINGERPRINT = "{fingerprint}"'
    text, count = re.subn(r'^FINGERPRINT = "\w*"', line, source.read_text(), flags=re.M)
    if count != 1:
        raise SystemExit(f"{source} has no line FINGERPRINT; write there: {line}")
    source.write_text(text)
    size = sum(file.stat().st_size for file in builtin.FOLDER.rglob("*") if file.is_file())
    print(f"{builtin.VERSION}: {fingerprint[:16]}, {size / 1e6:.1f} MB in {builtin.FOLDER}")


if __name__ == "__main__":
    main()
