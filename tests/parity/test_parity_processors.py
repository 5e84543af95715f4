"""Exported folders as their users read them: AutoProcessor, then the model's own generate."""

from pathlib import Path

import jax
import numpy as np
import pytest
from command import run

import rvq_jax as rj
from rvq_jax.audio import chroma
from rvq_jax.lm.sampling import Sampling
from rvq_jax.systems.decoding import programs, windows

REASON = "the parity peers are not installed"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

import musicgen_peers as peers  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

FIXTURES = Path(__file__).parents[1] / "fixtures"
CODECS = sorted(path.name for path in (FIXTURES / "codecs").iterdir())
FRAMES = 30
TEXTS = ["slow piano", "no", "  slow,  piano \n", "Slow Piano", "née ☃ piano", "slow " * 30]
CLASSES = {
    "text": ("MusicgenProcessor", "EncodecFeatureExtractor"),
    "stereo": ("MusicgenProcessor", "EncodecFeatureExtractor"),
    "melody": ("MusicgenMelodyProcessor", "MusicgenMelodyFeatureExtractor"),
}
each_kind = pytest.mark.parametrize("kind", CLASSES)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Our model of each kind, written by the command, and its processor."""
    made = {}

    def of(kind, capsys):
        if kind == "melody":
            pytest.importorskip("torchaudio", reason="the extractor of melodies needs it")
        if kind not in made:
            folder = tmp_path_factory.mktemp("exported") / kind
            source = FIXTURES / "musicgen" / kind
            assert run(capsys, "export", source, "--out", folder)[0] == 0
            processor = transformers.AutoProcessor.from_pretrained(folder)
            made[kind] = rj.MusicGen.load(source), folder, processor
        return made[kind]

    return of


def tune(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Notes of a quarter of a second, `[S, C]`."""
    notes = np.random.default_rng(0).integers(40, 90, (1 + int(4 * seconds), channels))
    when = np.arange(round(seconds * rate)) / rate
    hertz = 440.0 * 2.0 ** ((notes[(4 * when).astype(int)] - 69) / 12)
    return (0.3 * np.sin(2 * np.pi * np.cumsum(hertz, axis=0) / rate)).astype(np.float32)


@each_kind
def test_it_is_the_processor_of_the_kind(exported, capsys, kind):
    processor = exported(kind, capsys)[2]
    found = type(processor).__name__, type(processor.feature_extractor).__name__
    assert found == CLASSES[kind]


@each_kind
def test_its_tokens_are_those_that_our_model_reads(exported, capsys, kind):
    """But for an empty text, which there is a closing token and here no token, the null."""
    model, _, processor = exported(kind, capsys)
    theirs = processor(text=TEXTS, padding=True, return_tensors="np")
    ids, mask = model.text.tokens(TEXTS)
    most = mask.sum(axis=1).max()
    assert np.array_equal(theirs["attention_mask"], mask[:, :most])
    assert np.array_equal(theirs["input_ids"], ids[:, :most])


@pytest.mark.parametrize("kind", ["text", "stereo"])
def test_its_audio_is_what_our_model_goes_on_from(exported, capsys, kind):
    """Values, and the codes that the models make of them."""
    model, folder, processor = exported(kind, capsys)
    audio = tune(0.1, model.codec.config.rate, model.channels)
    given = audio[:, 0] if model.channels == 1 else audio.T
    values = processor(audio=given, sampling_rate=model.codec.config.rate, return_tensors="pt")
    values = values["input_values"]
    np.testing.assert_array_equal(values.numpy()[0].T, audio)
    peer = transformers.AutoModelForTextToWaveform.from_pretrained(folder).eval()
    with torch.no_grad():
        # Of stereo each channel is coded by itself.
        codes = [peer.audio_encoder.encode(x).audio_codes[0] for x in values.split(1, dim=1)]
    theirs = torch.stack(codes, dim=2).flatten(1, 2).numpy()
    np.testing.assert_array_equal(model._prompt(audio[None]), theirs)


@pytest.mark.parametrize("seconds", [0.5, 1.4, 2.0])
def test_its_melody_is_what_our_model_follows(exported, capsys, seconds):
    """As far as the processor takes it, which is as long as the model's melody; then repeated."""
    model, _, processor = exported("melody", capsys)
    audio = tune(seconds, model.codec.config.rate)
    found = processor(
        audio=audio[:, 0], text=["slow piano"], sampling_rate=model.codec.config.rate,
        return_tensors="np",
    )  # fmt: skip
    theirs = chroma.fit(found["input_features"], model.config.melody_frames)
    ours = model.encode_conditions(["slow piano"], audio[None])["melody"].states
    np.testing.assert_array_equal(ours, theirs)
    assert np.array_equal(found["input_ids"], model.text.tokens(["slow piano"])[0][:, :4])


@each_kind
def test_generate_takes_what_it_gives(exported, capsys, kind):
    """Greedy codes of texts, with a melody where the model follows one, are ours."""
    model, folder, processor = exported(kind, capsys)
    peer = transformers.AutoModelForTextToWaveform.from_pretrained(folder).eval()
    rate, melody = model.codec.config.rate, None
    given = {"text": ["slow piano"], "return_tensors": "pt"}
    if kind == "melody":
        melody = tune(1.4, rate)[None]
        given |= {"audio": melody[0, :, 0], "sampling_rate": rate}
    inputs = processor(**given)
    want = peers.drawn(peer, FRAMES, **inputs)
    conditions = model.encode_conditions(["slow piano"], melody)
    forced = np.full((1, model.config.levels, FRAMES), -1, np.int32)
    window = windows.window_of(model.pattern, forced, np.array([FRAMES]))
    args = window.pattern, conditions, jax.random.key(0), window.forced, window.lengths
    options = {"guidance": 3.0, "sampling": Sampling(0.0)}
    codes = programs.generate_codes(model.config, model.params, *args, **options).codes
    np.testing.assert_array_equal(np.asarray(codes)[:, :, :FRAMES], want)
    # As it stands in the folder: sampled, with guidance, to its codec's audio.
    audio = peer.generate(**inputs, max_new_tokens=FRAMES)
    assert audio.shape[:2] == (1, model.channels) and torch.isfinite(audio).all()


@pytest.mark.parametrize("name", CODECS)
def test_a_codecs_extractor_gives_it_its_audio(name, capsys, tmp_path):
    """By AutoProcessor and by AutoFeatureExtractor; codes of what it gives are ours."""
    source = FIXTURES / "codecs" / name
    assert run(capsys, "export", source, "--out", tmp_path / "m")[0] == 0
    codec, peer = rj.Codec.load(source), transformers.AutoModel.from_pretrained(tmp_path / "m")
    extract = transformers.AutoProcessor.from_pretrained(tmp_path / "m")
    same = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "m")
    assert extract.to_dict() == same.to_dict()
    audio = np.load(source / "expected.npz")["audio"][:1]
    given = audio[0, :, 0] if codec.config.channels == 1 else audio[0].T
    inputs = extract(raw_audio=given, sampling_rate=codec.config.rate, return_tensors="pt")
    values = inputs["input_values"].numpy().transpose(0, 2, 1)
    # Whole frames of DAC, and whole segments where a codec has those.
    np.testing.assert_array_equal(values[:, : audio.shape[1]], audio)
    assert not values[:, audio.shape[1] :].any()
    options = {"bandwidth": peer.config.target_bandwidths[-1]} if "encodec" in name else {}
    with torch.no_grad():
        found = peer.eval().encode(inputs["input_values"], **options)
    codes = found.audio_codes
    if "encodec" in name:
        codes = torch.cat(list(codes), dim=-1)
        codes = codes[..., : codes.shape[-1] - found.last_frame_pad_length]
    np.testing.assert_array_equal(codec.encode(values).codes, codes.numpy())
