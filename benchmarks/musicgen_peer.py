"""transformers' MusicGen of one of our configs, with random weights: its generation, its training.

Text encoder and codec have next to no weight, so that they cost nothing.
"""

import inspect

import numpy as np

from rvq_jax.codec.config import CodecConfig
from rvq_jax.codec.seanet import SEANetConfig
from rvq_jax.convert import encodec
from rvq_jax.lm.model import LMConfig

TOKENS = 16  # of the text
HOW = {"do_sample": True, "guidance_scale": 3.0, "top_k": 250}


def build(config: LMConfig, device: str = "cpu"):
    """The model, its weights drawn on the device."""
    import torch
    import transformers

    torch.manual_seed(0)
    text = transformers.T5Config(vocab_size=99, d_model=768, d_kv=8, d_ff=16, num_layers=1)
    seanet = SEANetConfig(filters=2, dim=8, ratios=(4, 4), causal=False, true_skip=True)
    codec = CodecConfig(800, seanet, levels=4, codebook_size=2048)
    decoder = {
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "ffn_dim": config.mlp_dim,
        "dropout": 0.0,
    }
    whole = transformers.MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=encodec.to_fields(codec), decoder=decoder
    )
    with torch.device(device):
        model = transformers.MusicgenForConditionalGeneration(whole).eval()
    model = model.to(device)
    settings = model.generation_config
    settings.pad_token_id = settings.bos_token_id = settings.decoder_start_token_id = 2048
    return model


def _text(model, batch: int) -> dict:
    import torch

    return {
        "input_ids": torch.full((batch, TOKENS), 5, device=model.device),
        "attention_mask": torch.ones(batch, TOKENS, dtype=torch.long, device=model.device),
    }


def draw(model, batch: int, frames: int, **more) -> None:
    """Generates `frames` frames by the loop that users call."""
    import torch

    with torch.no_grad():
        model.generate(**_text(model, batch), **HOW, max_new_tokens=frames + 3, **more)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


class StaticDraw:
    """`draw` with a static cache, for which transformers compiles the model's step on a GPU.

    The cache is handed over, as MusicGen's own `generate` makes no other than a growing one
    whatever its settings say.
    """

    def __init__(self, model, batch: int, frames: int):
        import torch
        from transformers import StaticCache

        self.model, self.batch, self.frames = model, batch, frames
        # One for all calls: graphs of the step are recorded for where it lies.
        self.static = StaticCache(config=model.config.decoder, max_cache_len=frames + 8)
        taken = inspect.signature(model.forward).parameters
        self.name = "past_key_values" if "past_key_values" in taken else "cache"
        # Theirs (5.17) adds positions on the CPU to a length that lies on the card.
        table = model.decoder.model.decoder.embed_positions
        table.forward = lambda x, past=0: table.weights[
            torch.arange(x.shape[-1], device=x.device) + past
        ].detach()

    def __call__(self) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.static.reset()
        cache = EncoderDecoderCache(self.static, DynamicCache())
        draw(self.model, self.batch, self.frames, **{self.name: cache})

    @property
    def compiled(self) -> bool:
        """Whether the step went through torch.compile."""
        return getattr(self.model, "_compiled_call", None) is not None


def training(model, tokens_BKT: np.ndarray, *, autocast: bool = False, compiled: bool = False):
    """Forward, backward, clipping, AdamW and the running mean of the same sizes in torch.

    Args:
      model: what `build` gave, in float32.
      tokens_BKT: what is learned, in the pattern's order.
      autocast: products in bfloat16.
      compiled: the forward and the backward pass through torch.compile.

    Returns:
      A call that does one update.
    """
    import torch

    from rvq_jax.lm.model import teacher_inputs

    # Weight decay and clipping as ours; their text encoder and codec do not train.
    trained = [*model.decoder.parameters(), *model.enc_to_dec_proj.parameters()]
    on_gpu = model.device.type == "cuda"
    tune = torch.optim.AdamW(trained, 1e-3, (0.9, 0.95), weight_decay=0.1, fused=on_gpu or None)
    labels = torch.tensor(tokens_BKT.swapaxes(1, 2), dtype=torch.long, device=model.device)
    # Given here, as its own shift of the labels reads a field that its config lacks.
    shifted = np.asarray(teacher_inputs(tokens_BKT, 2048)).reshape(-1, tokens_BKT.shape[2])
    inputs = _text(model, len(tokens_BKT)) | {
        "labels": labels,
        "decoder_input_ids": torch.tensor(shifted, dtype=torch.long, device=model.device),
    }
    model.freeze_text_encoder()
    model.freeze_audio_encoder()
    model.train()
    whole = torch.nn.ModuleList([model.decoder, model.enc_to_dec_proj])
    swa = torch.optim.swa_utils
    mean = swa.AveragedModel(whole, multi_avg_fn=swa.get_ema_multi_avg_fn(0.99))
    forward = torch.compile(model) if compiled else model

    def step():
        tune.zero_grad()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            loss = forward(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        tune.step()
        mean.update_parameters(whole)
        if on_gpu:
            torch.cuda.synchronize()

    return step
