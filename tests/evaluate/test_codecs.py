"""Points on clips: what is measured is what the codec does, whatever the way it was measured."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_codecs
from refusals import refused
from tiers import slow

import rvq_jax as rj
from rvq_jax import metrics
from rvq_jax.audio import resample
from rvq_jax.evaluate import codecs, results
from rvq_jax.evaluate import pieces as cutting
from rvq_jax.evaluate.measures import Measure
from rvq_jax.evaluate.pieces import Piece
from rvq_jax.evaluate.points import CodecPoints, Coding, Point, levels_of
from rvq_jax.evaluate.rows import Rows, packed, unpacked

RATE = 600


def error(reference_SC, estimate_SC, rate) -> float:
    """A metric without a program to compile."""
    return float(np.sqrt(np.mean((reference_SC - estimate_SC) ** 2)))


def loud(reference_SC, estimate_SC, rate) -> float:
    """One that silence has no value of."""
    power = float(np.mean(reference_SC**2))
    return 10 * np.log10(power) if power else np.nan


ERROR = Measure("error", "error", "", "less", None, error)
LOUD = Measure("loud", "loudness", "dB", "more", None, loud)


def noise(seconds: float, seed: int = 0, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=(round(seconds * RATE), channels))).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Late:
    """A source that keeps a share of the audio and gives it so many samples late."""

    shares: tuple[float, ...] = (0.5, 1.0)
    late: int = 0
    calls: list = dataclasses.field(default_factory=list)
    name: str = "late"

    @property
    def points(self):
        return [Point(f"{s}", "late", "opus", None, f"{s} {self.late}") for s in self.shares]

    def code(self, pieces):
        self.calls.extend(pieces)
        late = [np.roll(piece.audio_SC, self.late, axis=0) for piece in pieces]
        for audio_SC in late:
            audio_SC[: self.late] = 0
        codes = [np.round(100 * np.abs(piece.audio_SC[:20].T)).astype(int) for piece in pieces]
        return [[Coding(s * x, 8 * len(x)) for s in self.shares] for x in late], codes


def measured(source, clips, rows=None, piece=1.0, measures=(ERROR, LOUD), batch=3, channels=1):
    rows = Rows() if rows is None else rows
    settings = codecs.Settings(channels, piece, batch)
    left = codecs.measure([source], clips, measures, rows, settings)
    keys = [settings.key(point.key) for point in source.points]
    found = [[rows.get(key, clip.identity) for clip in clips] for key in keys]
    return found, left


def test_a_clip_is_the_mean_of_its_pieces_each_as_long_as_it_is():
    """Which metrics that are sums show: of the whole clip they are the same."""
    square = Measure("square", "", "", "less", None, lambda a, b, r: error(a, b, r) ** 2)
    clips = cutting.of_arrays([(noise(s, i), RATE) for i, s in enumerate((0.4, 2.3, 1.0))])
    for share, found in zip(
        (0.5, 1.0), measured(Late(), clips, measures=(square,))[0], strict=True
    ):
        for row, clip in zip(found, clips, strict=True):
            audio_SC, _ = clip.load()
            want = np.mean(((1 - share) * audio_SC) ** 2)
            np.testing.assert_allclose(row["scores"]["square"], want, rtol=1e-5)
            assert row["seconds"] == pytest.approx(len(audio_SC) / RATE)
            assert row["bits"] == 8 * len(audio_SC)


@pytest.mark.parametrize("late", [7, 31])
def test_a_source_that_comes_late_is_judged_as_if_it_did_not(late):
    """Of one clip the delay may be chance; of most of the first clips it is the source's."""
    quiet = [np.pad(noise(0.8, i), [(0, 60), (0, 0)]) for i in range(3)]  # which the end cuts
    clips = cutting.of_arrays([(x, RATE) for x in quiet])
    on_time, _ = measured(Late(), clips)
    delayed, _ = measured(Late(late=late), clips)
    for a, b in zip(on_time, delayed, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x["scores"]["error"], y["scores"]["error"], rtol=1e-5)


@pytest.mark.parametrize(
    ("delays", "want"),
    [
        ([(7 / 600, 600)] * 3, 7 / 600),
        ([(33 / 16_000, 16_000), (92 / 44_100, 44_100), (50 / 24_000, 24_000)], 92 / 44_100),
        ([(7 / 600, 600), (31 / 600, 600), (0.0, 600)], 0.0),
        ([], 0.0),
    ],
)
def test_clips_of_any_rates_agree_on_a_delay(delays, want):
    assert codecs._agreed(delays) == want


def test_silence_does_not_say_how_late_a_source_is():
    rows, silent = Rows(), [np.zeros((RATE, 1), np.float32)] * 5
    clips = cutting.of_arrays([(x, RATE) for x in [*silent, noise(0.8, 1), noise(0.8, 2)]])
    source = Late(late=7)
    measured(source, clips, rows)
    key = codecs.Settings(1, 1.0, 3).key(source.points[-1].key)
    assert rows.get(key, codecs.DELAY)["seconds"] == pytest.approx(7 / RATE)


def test_pieces_are_never_empty():
    clips = cutting.of_arrays([(noise(0.01), RATE)])
    assert [len(piece.audio_SC) for piece in cutting.pieces(clips, [0], 1, 1e-6, {})] == [1] * 6


@pytest.mark.parametrize("change", [{"rate": 1200}, {"normalize": True}])
def test_a_codec_of_another_config_is_another(change):
    """Though it has the same arrays."""
    codec = rj.Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(0))
    other = dataclasses.replace(codec, config=dataclasses.replace(codec.config, **change))
    keys = {CodecPoints("it", x, (3,), 1.0, 3).points[0].key for x in (codec, other, codec)}
    assert len(keys) == 2


def test_fewer_levels_than_were_measured_have_their_use_too():
    codec = rj.Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(0))
    clips, rows = cutting.of_arrays([(noise(1.0, i), RATE) for i in range(2)]), Rows()
    uses = []
    for levels in ((1, 3), (1,)):
        source = CodecPoints("it", codec, levels, 1.0, 3)
        measured(source, clips, rows, measures=(ERROR,))
        settings = codecs.Settings(1, 1.0, 3)
        uses.append(results.of_codecs([source], clips, (ERROR,), rows, {}, settings)["use"]["it"])
    assert uses[1] == uses[0][:1] and len(uses[0]) == 3


def test_metrics_of_one_call_stay_beside_those_of_another():
    clips, rows, source = cutting.of_arrays([(noise(1.0), RATE)]), Rows(), Late()
    measured(source, clips, rows, measures=(ERROR,))
    found, _ = measured(source, clips, rows, measures=(LOUD,))
    assert found == measured(Late(), clips)[0]


def test_a_metric_that_is_left_out_has_no_values():
    """Also where an earlier call had its package."""
    clips, rows, source = cutting.of_arrays([(noise(1.0), RATE)]), Rows(), Late()
    measured(source, clips, rows)
    gone = dataclasses.replace(LOUD, packages=("no_such_package",))
    settings = codecs.Settings(1, 1.0, 3)
    done = results.of_codecs([source], clips, (ERROR, gone), rows, {}, settings)
    assert [set(system["scores"]) for system in done["systems"]] == [{"error"}] * 2
    assert {pair["metric"] for pair in done["pairs"]} == {"error"}
    assert "no_such_package" in done["metrics"][1]["left_out"]


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": -1.0},
        {"bits": 10**400},
        {"scores": {"error": float("inf")}},
        {"scores": 3},
        {"counts": {"shape": [1 << 40, 1 << 40], "dtype": "|u1", "data": ""}},
    ],
)
def test_rows_that_no_measurement_gives_are_measured_again(tmp_path, change):
    clips = cutting.of_arrays([(noise(1.0), RATE)])
    whole, _ = measured(Late(), clips, Rows(tmp_path))
    path = tmp_path / "rows.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [row | change if "scores" in row else row for row in lines]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed))
    assert measured(Late(), clips, Rows(tmp_path))[0] == whole


def test_work_goes_on_where_it_was_stopped(tmp_path):
    """The rows are those of work that was never stopped, and nothing is coded twice."""
    clips = cutting.of_arrays([(noise(1.5, i), RATE) for i in range(6)])
    whole, _ = measured(Late(), clips)

    class Stopped(Exception):
        pass

    class Stops(Late):
        def code(self, pieces):
            if len(self.calls) > 8:
                raise Stopped
            return super().code(pieces)

    with pytest.raises(Stopped):
        measured(Stops(), clips, Rows(tmp_path))
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(b'{"key": "half a li')
    before = len((tmp_path / "rows.jsonl").read_bytes().splitlines()) - 1
    again = Late()
    assert measured(again, clips, Rows(tmp_path))[0] == whole
    done = (before - 1) // len(again.points)  # one line is of the delay
    assert 0 < done < 6 and len(again.calls) == 2 * (6 - done)
    untouched = Late()
    assert measured(untouched, clips, Rows(tmp_path))[0] == whole and not untouched.calls


def test_what_has_no_value_says_so_and_counts_nowhere():
    silent = np.zeros((RATE, 1), np.float32)
    half = np.concatenate([silent, noise(1.0)])
    clips = cutting.of_arrays([(silent, RATE), (half, RATE), (noise(1.0), RATE)])
    (_, rows), _ = measured(Late(), clips)
    first, second, third = (row["scores"]["loud"] for row in rows)
    assert first is None and second == pytest.approx(third)
    json.dumps(rows, allow_nan=False)


def test_channels_that_nothing_is_for_are_left_out():
    """A mix to one channel takes them all; else one or two are left as they are."""
    clips = cutting.of_arrays([(noise(0.5, c, c), RATE) for c in (1, 2, 5)])
    for channels, want in ((1, [1, 1, 1]), (None, [1, 2])):
        left: dict = {}
        found = [*cutting.pieces(clips, range(3), channels, 1.0, left)]
        assert [piece.audio_SC.shape[1] for piece in found] == want
        assert ("5 channels" in left.get("clip 2", "")) == (channels is None)


@pytest.mark.parametrize("name", ["mono", slow("stereo"), slow("dac")])
def test_a_piece_in_a_batch_is_coded_as_alone(name):
    """Of any length and rate: its codes, their bits, and its audio."""
    codec = rj.Codec.init(small_codecs.CONFIGS[name], jax.random.key(0))
    channels, levels = codec.config.channels, codec.config.levels
    source = CodecPoints(name, codec, (levels,), 1.0, 3)
    short_SC, fast_SC = noise(0.37, 1, channels), noise(0.74, 2, channels)
    pieces = [Piece(0, noise(1.0, 0, channels), RATE, True, True)]
    pieces += [Piece(1, short_SC, RATE, True, True), Piece(2, fast_SC, 2 * RATE, True, True)]
    found, codes = source.code(pieces)
    ready = [short_SC, resample.to_rate(fast_SC, 2 * RATE, RATE)]
    for piece, codings, own, audio_SC in zip(pieces[1:], found[1:], codes[1:], ready, strict=True):
        alone = codec.encode(audio_SC[None])
        np.testing.assert_array_equal(own, alone.codes[0])
        (coding,) = codings
        assert coding.audio_SC.shape == piece.audio_SC.shape
        scales = 0 if alone.scales is None else 32 * alone.scales.shape[1]
        assert coding.bits == 4 * levels * own.shape[1] + scales
        want_SC = np.asarray(codec.decode(alone))[0]
        if piece.rate != RATE:
            want_SC = resample.to_rate(want_SC, RATE, piece.rate)
        np.testing.assert_allclose(coding.audio_SC, want_SC, atol=2e-5)


def test_results_are_those_of_the_rows():
    """Rate, use and means by independent sums; two points differ where intervals say so."""
    codec = rj.Codec.init(small_codecs.CONFIGS["mono"], jax.random.key(0))
    audio = [(noise(1.0, i), RATE) for i in range(4)]
    done = rj.evaluate_codec(codec, audio, levels=(1, 3), piece=1.0)
    one, three = done["systems"]
    frames = sum(-(-len(x) // codec.config.hop) for x, _ in audio)
    seconds = sum(len(x) for x, _ in audio) / RATE
    assert three["kbps"] == pytest.approx(3 * 4 * frames / seconds / 1000)
    assert one["kbps"] == pytest.approx(three["kbps"] / 3)
    coded = codec.encode(np.stack([x for x, _ in audio]))
    want = metrics.code_use(coded.codes, codec.config.codebook_size)
    for row, use in zip(done["use"]["codec"], want, strict=True):
        assert row["use"] == use["use"] and row["perplexity"] == pytest.approx(use["perplexity"])
        assert row["frames"] == frames
    reference, estimate = np.stack([x for x, _ in audio]), np.asarray(codec.decode(coded))
    want = metrics.si_sdr(reference[..., 0], estimate[..., 0]).mean()
    assert three["scores"]["si_sdr"]["mean"] == pytest.approx(float(want), abs=0.02)
    for pair in done["pairs"]:
        assert not pair["different"] and pair["count"] == 4  # too few to say so
    assert {m["name"]: m["left_out"] for m in done["metrics"]}["si_sdr"] is None
    json.dumps(done, allow_nan=False)


def test_counts_are_stored_as_they_are_and_small_however_long_the_clip():
    codes_KF = np.random.default_rng(0).integers(0, 1024, (3, 100_000))
    counts_KN = metrics.code_counts(codes_KF, 1024)
    stored = json.dumps(packed(counts_KN))
    np.testing.assert_array_equal(unpacked(json.loads(stored)), counts_KN)
    assert len(stored) < 3 * 1024 * 3


@pytest.mark.parametrize(
    ("total", "wanted", "have"),
    [(8, None, (1, 2, 4, 8)), (3, None, (1, 2, 3)), (1, None, (1,)), (4, (8, 2, 2, 4), (2, 4))],
)
def test_levels_are_those_that_there_are(total, wanted, have):
    config = dataclasses.replace(small_codecs.CONFIGS["mono"], levels=total)
    codec = rj.Codec(config, None, None)
    assert levels_of(codec, wanted, "it") == have
    refused(lambda: levels_of(codec, (99,), "it"), "it has", "--levels")
