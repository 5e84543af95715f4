"""Writes tests/fixtures/codecs: tiny models of transformers with what they compute.

Command:  python tests/parity/make_codec_fixtures.py
Needs:    the extra `parity`. The ordinary suite reads what this writes, without torch.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from test_parity_codecs import ENCODEC, MIMI, dac_peer, encodec_peer, mimi_peer, sounds

FOLDER = Path(__file__).parents[1] / "fixtures" / "codecs"
SMALL = {"num_filters": 2, "hidden_size": 8, "codebook_size": 16, "upsampling_ratios": [3, 2]}


def bandwidth(rate: int) -> list[float]:
    """Of three levels of 16 codes, at six samples per frame."""
    return [3 * 4 * -(-rate // 6) / 1000]


def encodec_models():
    for name, fields in ENCODEC.items():
        rate = {"encodec_24khz": 600, "encodec_48khz": 1200}.get(name, 800)
        own = {"sampling_rate": rate, "target_bandwidths": bandwidth(rate)}
        yield name, encodec_peer(**fields | SMALL | own)


def extractor(c):
    """The feature extractor of a codec's config."""
    if c.model_type == "dac":
        return transformers.DacFeatureExtractor(1, c.sampling_rate, hop_length=c.hop_length)
    segments = {name: getattr(c, name, None) for name in ("chunk_length_s", "overlap")}
    return transformers.EncodecFeatureExtractor(c.audio_channels, c.sampling_rate, **segments)


def write(name, peer, audio, codes, decoded, scales=None):
    """A folder of a model, with the arrays it gives and takes."""
    folder = FOLDER / name
    peer.save_pretrained(folder)
    extractor(peer.config).save_pretrained(folder)
    arrays = {"audio": audio, "codes": codes.int().numpy(), "decoded": decoded.mT.numpy()}
    if scales is not None:
        arrays["scales"] = scales.numpy()
    np.savez_compressed(folder / "expected.npz", **arrays)


@torch.no_grad()
def main():
    for name, peer in encodec_models():
        config = peer.config
        rate, channels = config.sampling_rate, config.audio_channels
        audio = sounds(2, int(1.37 * rate), channels, rate)
        found = peer.encode(torch.from_numpy(audio).mT, bandwidth=config.target_bandwidths[-1])
        last = found.last_frame_pad_length
        decoded = peer.decode(found.audio_codes, found.audio_scales, last_frame_pad_length=last)
        codes = torch.cat(list(found.audio_codes), dim=-1)
        codes = codes[..., : codes.shape[-1] - last]
        scales = torch.cat(found.audio_scales, 1) if config.normalize else None
        write(name, peer, audio, codes, decoded.audio_values, scales)
    sizes = {"encoder_hidden_size": 2, "decoder_hidden_size": 8, "downsampling_ratios": [2, 5]}
    peer = dac_peer(**sizes, n_codebooks=3, codebook_size=16, codebook_dim=3, sampling_rate=600)
    audio = sounds(2, 600, 1, 600)
    codes = peer.encode(torch.from_numpy(audio).mT).audio_codes
    decoded = peer.decode(audio_codes=codes).audio_values[:, None]
    write("dac", peer, audio, codes, decoded)
    sizes = {"upsampling_ratios": [3, 2], "hidden_size": 8, "upsample_groups": 8, "num_filters": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12}
    books = {"vector_quantization_hidden_dimension": 4, "codebook_dim": 4, "codebook_size": 16}
    peer = mimi_peer(**MIMI["tiny"] | sizes | heads | books | {"sampling_rate": 600})
    audio = sounds(2, 823, 1, 600)
    codes = peer.encode(torch.from_numpy(audio).mT).audio_codes
    write("mimi", peer, audio, codes, peer.decode(codes).audio_values)


if __name__ == "__main__":
    main()
