"""Codecs fine-tuned from folders of transformers, and read by it again."""

from pathlib import Path

import numpy as np
import pytest
from small_codec_runs import Sounds, run_of, sounds
from small_runs import log_of, one_window
from tiers import wide

from rvq_jax.systems.codec import Codec
from rvq_jax.train.loop import LoopConfig
from rvq_jax.train.runs import CodecRun, DACRun, MimiRun
from rvq_jax.train.runs.codec import fit_codec
from rvq_jax.train.tasks.adversarial import AdversarialConfig

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

FIXTURES = Path(__file__).parents[1] / "fixtures/codecs"
KINDS = {
    "encodec_24khz": (CodecRun, "EncodecModel"),
    "dac": (DACRun, "DacModel"),
    "mimi": (MimiRun, "MimiModel"),
}


@pytest.mark.parametrize("name", [x if x == "encodec_24khz" else wide(x) for x in KINDS])
def test_a_fine_tuned_folder_is_read_with_the_same_codes(name, tmp_path):
    """And the held-out distance has fallen."""
    kind, peer = KINDS[name]
    base = Codec.load(FIXTURES / name)
    rate, samples = base.config.rate, 40 * base.config.hop
    run = run_of(
        kind,
        kind().codec,
        init_from=str(FIXTURES / name),
        seconds=samples / rate,
        loop=LoopConfig(30, log_every=1, evaluate_every=10, checkpoint_every=100),
        adversarial=AdversarialConfig(),
    )
    source, held = Sounds(sounds()), Sounds(sounds(begin=50))
    source.rate = held.rate = rate
    with one_window():
        model = fit_codec(tmp_path / "run", source, run, heldout=held)
    distances = [line["heldout"]["loss"] for line in log_of(tmp_path / "run") if "heldout" in line]
    assert len(distances) == 3 and distances[-1] < distances[0]
    model.save(tmp_path / "model")
    # Clips that are shorter begin again.
    audio = np.stack([np.resize(record["audio"], (samples, 1)) for record in held])
    ours = Codec.load(tmp_path / "model")
    assert not np.array_equal(ours.encode(audio).codes, base.encode(audio).codes)
    theirs = getattr(transformers, peer).from_pretrained(tmp_path / "model").eval()
    options = {"bandwidth": theirs.config.target_bandwidths[-1]} if "encodec" in name else {}
    with torch.no_grad():
        codes = theirs.encode(torch.from_numpy(audio).mT, **options).audio_codes
    np.testing.assert_array_equal(ours.encode(audio).codes, codes.reshape(len(audio), -1, 40))
