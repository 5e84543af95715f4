"""Small MusicGens of transformers with random weights, saved as their folders."""

import numpy as np
import pytest
import torch
import transformers

PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁slow", -3.0)]
PIECES += [("▁pia", -4.0), ("no", -4.0)] + [(letter, -6.0) for letter in "adeilmnopstw,"]
T5 = {"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 3}
CODEC = {
    "sampling_rate": 16_000,
    "num_filters": 2,
    "upsampling_ratios": [4, 4],
    "hidden_size": 8,
    "codebook_size": 64,
    "codebook_dim": 8,
    "target_bandwidths": [24.0],
    "use_causal_conv": False,
    "norm_type": "weight_norm",
}
DECODER = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "num_codebooks": 4,
    "pad_token_id": 64,
    "bos_token_id": 64,
    "dropout": 0.0,
}


@torch.no_grad()
def peer_of(kind: str, decoder: dict | None = None, text: dict | None = None, **codec):
    """A 'text', 'stereo', 'melody' or 'alone' model whose every weight matters."""
    torch.manual_seed(0)
    fields = DECODER | (decoder or {})
    if kind == "stereo":
        fields |= {"num_codebooks": 8, "audio_channels": 2}
    if kind == "alone":
        model = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**fields))
    else:
        parts = {
            "text_encoder": transformers.T5Config(**(T5 | (text or {}))).to_dict(),
            "audio_encoder": transformers.EncodecConfig(**CODEC | codec).to_dict(),
            "decoder": fields,
        }
        melody = kind == "melody"
        config = transformers.MusicgenMelodyConfig if melody else transformers.MusicgenConfig
        make = transformers.MusicgenMelodyForConditionalGeneration
        make = make if melody else transformers.MusicgenForConditionalGeneration
        model = make(config(**parts, **({"chroma_length": 7} if melody else {})))
    for name, tensor in model.named_parameters():
        if name.endswith("norm.weight"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("norm.bias") or name.endswith("proj.bias"):
            tensor.normal_(std=0.3)
        elif "decoder.layers" in name or "proj.weight" in name:
            tensor.normal_(std=2.0 * tensor.shape[-1] ** -0.5)
        elif "embed_tokens" in name and "text_encoder" not in name:
            tensor.normal_()
        elif "lm_heads" in name:
            tensor.normal_(std=tensor.shape[-1] ** -0.5)
    generation = model.generation_config
    generation.pad_token_id = generation.bos_token_id = fields["pad_token_id"]
    generation.decoder_start_token_id = fields["pad_token_id"]
    generation.max_length = 1500
    generation.do_sample = True
    return model.eval()


def save(peer, folder) -> None:
    """Their folder, with a tokenizer of theirs."""
    peer.save_pretrained(folder)
    transformers.T5Tokenizer(vocab=PIECES, extra_ids=2).save_pretrained(folder)


def extractor(config):
    """The feature extractor of a model's config, set as transformers sets those it publishes."""
    rate = config.audio_encoder.sampling_rate
    if config.model_type == "musicgen":
        channels = config.decoder.audio_channels
        return transformers.EncodecFeatureExtractor(channels, rate, padding_side="left")
    pytest.importorskip("torchaudio", reason="the extractor of melodies needs it")
    # In whole seconds, as the published one's are.
    seconds = -(-(config.chroma_length - 1) * 4096 // rate)
    return transformers.MusicgenMelodyFeatureExtractor(sampling_rate=rate, chunk_length=seconds)


def rows(tokens_BKT: np.ndarray):
    """Tokens `[B, K, T]` as their decoder takes them, `[B · K, T]`."""
    return torch.tensor(tokens_BKT.reshape(-1, tokens_BKT.shape[2]), dtype=torch.long)


@torch.no_grad()
def drawn(peer, frames: int, **inputs) -> np.ndarray:
    """The codes `[B, K, F]` that their greedy generation with guidance 3 decodes."""
    seen = []
    decode = peer.audio_encoder.decode

    def watch(codes, *args, **kwargs):
        seen.append(codes[0].numpy())
        return decode(codes, *args, **kwargs)

    peer.audio_encoder.decode = watch
    levels = peer.config.decoder.num_codebooks // peer.config.decoder.audio_channels
    inputs = {k: torch.as_tensor(v) for k, v in inputs.items()}
    peer.generate(**inputs, do_sample=False, guidance_scale=3.0, max_new_tokens=frames + levels - 1)
    if len(seen) == 1:
        return seen[0]
    left, right = seen
    return np.stack([left, right], axis=2).reshape(len(left), -1, left.shape[2])
