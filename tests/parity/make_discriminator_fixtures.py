"""Writes tests/fixtures/discriminators: what published discriminators and their losses compute.

Command:  python tests/parity/make_discriminator_fixtures.py FOLDER
Needs:    torch, torchaudio, encodec 0.1.1, descript-audio-codec 1.0.0, and FOLDER, the unpacked
          source of audiocraft 1.3.0, of which one file is read. None of it is an extra of ours: the
          ordinary suite reads what this writes.

The models are the packages' own classes with few features. Real and decoded audio are noise with a
mean, and the decoded one is louder; the length is whole for one period and for no window or rate.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import types
from unittest import mock

import dac
import numpy as np
import torch
from audiotools import AudioSignal
from encodec.msstftd import MultiScaleSTFTDiscriminator

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "discriminators"
PACKAGES = ("torch", "torchaudio", "encodec", "descript-audio-codec", "descript-audiotools")


def sounds(channels: int, samples: int) -> list[torch.Tensor]:
    """Real and decoded audio `[2, C, S]`."""
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(2, channels, samples, generator=generator) for _ in range(2)]
    return [0.1 * noise[0] + 0.05, 0.3 * noise[1] - 0.02]


def gradients(loss: torch.Tensor, of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(of.values()), retain_graph=True)
    return dict(zip(of, found, strict=True))


def write(name: str, model: torch.nn.Module, sounds, judge, losses) -> None:
    """What one model gives of decoded audio, and the slopes of the losses.

    judge: of audio, scores and lists of features. losses: of decoded and real audio, the loss of
    the discriminator, of the generator and of features.
    """
    real, fake = sounds
    fake.requires_grad_()
    for key, gain in model.named_parameters():
        # As torch starts them, little but biases would arrive at the scores.
        gain.data *= 2.0 if key.endswith("weight_g") else 1.0
    scores, features = judge(fake)
    for_discriminator, for_generator, for_features = losses(fake, real)
    weights = dict(model.named_parameters())
    arrays = {
        "real": real,
        "fake": fake,
        "loss/discriminator": for_discriminator,
        "loss/generator": for_generator,
        "loss/features": for_features,
        **{f"weight/{key}": x for key, x in weights.items()},
        **{f"gradient/{key}": x for key, x in gradients(for_discriminator, weights).items()},
        "slope/generator": gradients(for_generator, {"fake": fake})["fake"],
        "slope/features": gradients(for_features, {"fake": fake})["fake"],
    }
    for i, (score, layers) in enumerate(zip(scores, features, strict=True)):
        arrays[f"score/{i}"] = score
        arrays |= {f"feature/{i}/{j}": x for j, x in enumerate(layers)}
    arrays = {key: x.detach().numpy() for key, x in arrays.items()}
    versions = [f"{package} {importlib.metadata.version(package)}" for package in PACKAGES]
    versions = np.array([*versions, "audiocraft 1.3.0"])
    np.savez_compressed(FOLDER / f"{name}.npz", versions=versions, **arrays)


def audiocraft_losses(folder: pathlib.Path) -> types.ModuleType:
    """Its adversarial losses without the rest of it; on one process flashy does nothing there."""
    flashy = mock.MagicMock()
    flashy.distrib.eager_sync_model = flashy.utils.readonly = contextlib.nullcontext
    sys.modules["flashy"] = flashy
    path = folder / "audiocraft" / "adversarial" / "losses.py"
    spec = importlib.util.spec_from_file_location("audiocraft_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encodec(source: types.ModuleType) -> None:
    model = MultiScaleSTFTDiscriminator(
        3, in_channels=2, n_ffts=[64, 32], hop_lengths=[16, 8], win_lengths=[64, 32]
    )
    adversarial = source.AdversarialLoss(
        model,
        mock.MagicMock(),
        source.get_adv_criterion("hinge"),
        source.get_real_criterion("hinge"),
        source.get_fake_criterion("hinge"),
        source.FeatureMatchingLoss(),
    )

    def losses(fake, real):
        with mock.patch.object(torch.Tensor, "backward"):  # its gradients are taken here
            for_discriminator = adversarial.train_adv(fake, real)
        return for_discriminator, *adversarial(fake, real)

    write("encodec_stft", model, sounds(2, 347), model, losses)


def descript(name: str, narrow: int, **kinds) -> None:
    """DAC's discriminators of one kind, of `narrow` times fewer features."""
    made = {}
    for layer in ("WNConv1d", "WNConv2d"):
        own = getattr(dac.model.discriminator, layer)

        def few(inner, outer, *args, own=own, groups=1, **kwargs):
            inner, outer, groups = (
                n if n < 4 else max(1, n // narrow) for n in (inner, outer, groups)
            )
            return own(inner, outer, *args, groups=groups, **kwargs)

        made[layer] = few
    with mock.patch.multiple(dac.model.discriminator, **made):
        model = dac.model.discriminator.Discriminator(
            **{"rates": [], "periods": [], "fft_sizes": []} | kinds
        )
    loss = dac.nn.loss.GANLoss(model)

    def judge(audio):
        maps = model(audio)
        return [m[-1] for m in maps], [m[:-1] for m in maps]

    def losses(fake, real):
        fake, real = AudioSignal(fake, 44_100), AudioSignal(real, 44_100)
        return loss.discriminator_loss(fake, real), *loss.generator_loss(fake, real)

    write(name, model, sounds(1, 345), judge, losses)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("audiocraft", type=pathlib.Path)
    torch.manual_seed(0)
    FOLDER.mkdir(exist_ok=True)
    encodec(audiocraft_losses(parser.parse_args().audiocraft))
    descript("dac_periods", 64, periods=[2, 5])
    descript("dac_scales", 64, rates=[4])
    descript("dac_bands", 16, fft_sizes=[64])


if __name__ == "__main__":
    main()
