"""Coders that everyone knows, to compare with: Opus and MP3 at a bitrate, in this process.

Through PyAV (package av of the extra `metrics`), whose wheels hold libopus and LAME. Bits are the
payload, the sizes of the packets that were coded, without any container around them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rvq_jax.audio import resample
from rvq_jax.errors import UserError, shown
from rvq_jax.metrics import align
from rvq_jax.metrics.packages import extra
from rvq_jax.typing import Array

KINDS = {"opus": "Opus", "mp3": "MP3"}
KBPS = {"opus": (6, 510), "mp3": (8, 320)}  # that some rate and number of channels takes
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
OPUS_CHANNEL = 256  # kbps of one channel, at most
MP3_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of MPEG-2, from 32 kHz on MPEG-1
MPEG1, MPEG2_KBPS = 32_000, 160  # hertz from which on it is; what is the most below
MP3_BITS = {1: 1.4, 2: 2.5}  # by channels: bits for each sample in time, at least
# Samples by which Opus may be early or late beside the delay that it states, as it codes speech and
# music in two ways: two of 48 kHz take 5 dB off the SI-SDR of speech at 24 kbps.
REST = 8
HEARD = 60  # seconds from which that is told


@dataclass(frozen=True)
class Coder:
    """A coder at a bitrate, at the best settings that it has for a kind of signal."""

    kind: Literal["opus", "mp3"]
    kbps: float  # that is asked for; what it takes is measured
    signal: Literal["speech", "music"] = "music"

    @property
    def name(self) -> str:
        """As `parse` takes it."""
        return f"{self.kind}:{self.kbps:g}"

    def code(self, audio_SC: Array, rate: int) -> tuple[np.ndarray, int]:
        """Encodes and decodes audio.

        Opus: application voip for speech and audio for music, complexity 10, VBR, frames of 20 ms,
        at the least of its rates that has the whole band; decoded at 48 kHz. MP3: LAME's quality 0
        and average bitrate (ABR), which its manual prefers to a constant one where a bitrate is
        asked for; joint stereo; at the least of the rates of MPEG-1 and -2 that has the band, or
        lower where there are few bits, about as LAME's own program chooses: 22.05 kHz for 32 kbps
        of mono. Opus: RFC 6716. MP3: ISO/IEC 11172-3 and 13818-3.

        Args:
          audio_SC: `[S, C]`, of one or two channels.
          rate: in hertz.

        Returns:
          What is heard, `[S, C]` float32 at the same rate, exactly as long and without the coder's
          delay, to the sample of its own rate; and the bits of all packets, those of delay and
          padding too.

        Raises:
          UserError: the package av is not there, or the coder does not take this bitrate at this
            rate, or so many channels.
        """
        with extra(KINDS[self.kind]):
            import av
        audio_SC = np.asarray(audio_SC, np.float32)
        samples, channels = audio_SC.shape
        if channels not in (1, 2):
            raise UserError(
                f"{self.name} codes one or two channels, got {channels}; mix them first"
            )
        if samples == 0:
            return audio_SC, 0
        inner = self.inner_rate(rate, channels)
        encoder = self._encoder(av, inner, channels)
        coded_SC = resample.to_rate(audio_SC, rate, inner)
        # Of less than one sample at a lower rate there would be none.
        coded_SC = coded_SC if len(coded_SC) else audio_SC[:1]
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(coded_SC.reshape(1, -1)), "flt", encoder.layout.name
        )
        frame.sample_rate, frame.pts = inner, 0
        packets = [*encoder.encode(frame), *encoder.encode(None)]
        decoded_SC, outer = self._decoded(av, packets, encoder)
        # Time 0 is that of the first sample that came in: what is before it is the coder's delay.
        delay = -packets[0].pts * outer // inner
        wanted_SC = resample.to_rate(audio_SC, rate, outer)
        heard = slice(delay, delay + HEARD * outer)
        pair = (wanted_SC[: HEARD * outer].mean(1), decoded_SC[heard].mean(1))
        heard_SC = align.aligned(wanted_SC, decoded_SC, delay + align.delay(*pair, REST))
        result_SC = align.aligned(audio_SC, resample.to_rate(heard_SC, outer, rate), 0)
        return result_SC, 8 * sum(packet.size for packet in packets)

    def inner_rate(self, rate: int, channels: int) -> int:
        """The rate in hertz at which audio of a rate is coded; raises UserError as `code`."""
        if self.kind == "opus":
            if self.kbps > OPUS_CHANNEL * channels:
                raise UserError(f"{self.name}: mono has at most {OPUS_CHANNEL} kbps; ask for fewer")
            return _least(OPUS_RATES, rate)
        most = max(MP3_RATES[0], 1000 * self.kbps / MP3_BITS[channels])
        found = min(_least(MP3_RATES, rate), max(x for x in MP3_RATES if x <= most))
        if found < MPEG1 and self.kbps > MPEG2_KBPS:
            raise UserError(
                f"{self.name}: audio of {rate} Hz has at most {MPEG2_KBPS} kbps; ask for fewer"
            )
        return found

    def _encoder(self, av, rate: int, channels: int):
        encoder = av.CodecContext.create({"opus": "libopus", "mp3": "libmp3lame"}[self.kind], "w")
        encoder.sample_rate, encoder.format = rate, {"opus": "flt", "mp3": "fltp"}[self.kind]
        encoder.layout, encoder.bit_rate = ("mono", "stereo")[channels - 1], round(1000 * self.kbps)
        if self.kind == "mp3":
            encoder.options = {"compression_level": "0", "abr": "1"}
        else:
            application = {"speech": "voip", "music": "audio"}[self.signal]
            encoder.options = {"application": application, "compression_level": "10"}
            encoder.options |= {"vbr": "on", "frame_duration": "20"}
        return encoder

    def _decoded(self, av, packets: list, encoder) -> tuple[np.ndarray, int]:
        """Samples `[S, C]` of packets, from the coder's delay on, and their rate."""
        decoder = av.CodecContext.create({"opus": "libopus", "mp3": "mp3float"}[self.kind], "r")
        decoder.layout, decoder.options = encoder.layout.name, {"request_sample_fmt": "flt"}
        # Their bytes alone: what the encoder notes beside would take off a part of the delay.
        copies = [*(av.Packet(bytes(packet)) for packet in packets), None]
        frames = [frame for packet in copies for frame in decoder.decode(packet)]
        channels = encoder.layout.nb_channels
        planar = frames[0].format.is_planar
        parts = [
            x.to_ndarray().T if planar else x.to_ndarray().reshape(-1, channels) for x in frames
        ]
        return np.concatenate(parts).astype(np.float32), frames[0].sample_rate


def parse(text: str, signal: Literal["speech", "music"] = "music") -> Coder:
    """A coder of its name and bitrate in kbps, 'opus:6' or 'mp3:32', for a kind of signal.

    Raises UserError for an unknown coder and for a bitrate that it never has.
    """
    kind, _, number = text.partition(":")
    if kind not in KINDS:
        known = " or ".join(f"{name}:{low}" for name, (low, _) in KBPS.items())
        raise UserError(f"{shown(text)} is no coder; write {known}, with the bitrate in kbps")
    low, high = KBPS[kind]
    try:
        kbps = float(number)
    except ValueError:
        kbps = np.nan
    if not low <= kbps <= high:
        bounds = f"{KINDS[kind]} has bitrates from {low} to {high} kbps"
        raise UserError(f"{shown(text)}: {bounds}; write {kind}:{low} or more")
    return Coder(kind, kbps, signal)


def _least(rates: tuple[int, ...], rate: int) -> int:
    """The least of some rates that has the whole band of a rate, or the greatest."""
    return next((found for found in rates if found >= rate), rates[-1])
