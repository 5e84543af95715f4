"""Writes tests/fixtures/losses/published.npz: losses and balancer of the published packages.

Losses are in double precision: where a logarithm or a clip is steep, float32 moves the published
gradients by up to 1e-3.

Command:  python tests/parity/make_loss_fixtures.py AUDIOCRAFT
Needs:    an environment of its own with `torch`, `torchaudio`, `descript-audio-codec` and
          `flashy` (no JAX), and AUDIOCRAFT, the unpacked source of audiocraft, of whose
          `losses/` only single files are imported. The ordinary suite reads what this writes.
"""

import importlib.util
import math
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from audiotools import AudioSignal
from dac.nn import loss as dac

TARGET = Path(__file__).parents[1] / "fixtures" / "losses" / "published.npz"
RATE, SAMPLES = 24_000, 2001  # of no whole number of hops
DESCRIPT_RATE = 44_100


def pad_for_conv1d(x, size, hop, total=0):
    """As of `audiocraft.modules.conv`, which needs xformers and more only to be imported."""
    frames = (x.shape[-1] - size + total) / hop + 1
    ideal = (math.ceil(frames) - 1) * hop + (size - total)
    return torch.nn.functional.pad(x, (0, ideal - x.shape[-1]))


def flashy_averager():
    """The one function of flashy that the balancer needs: its package imports a trainer."""
    path = Path(importlib.util.find_spec("flashy").origin).with_name("utils.py")
    spec = importlib.util.spec_from_file_location("flashy.utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.averager


def part(folder: Path, name: str):
    """One file of audiocraft/losses, without the package around it."""
    for parent in ("audiocraft", "audiocraft.losses", "audiocraft.modules", "flashy"):
        sys.modules.setdefault(parent, types.ModuleType(parent))
    sys.modules["audiocraft.modules"].pad_for_conv1d = pad_for_conv1d
    sys.modules["flashy"].averager = AVERAGER
    # Of one worker, as flashy has it.
    sys.modules["flashy"].distrib = types.SimpleNamespace(average_metrics=lambda x, count: x)
    path = folder / "audiocraft" / "losses" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"audiocraft.losses.{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


AVERAGER = flashy_averager()


def losses(folder: Path):
    """Functions of an estimate and the original, each `[B, C, S]`, by name; some in small."""
    spectra, resolutions = part(folder, "specloss"), part(folder, "stftloss")
    common = {"sample_rate": RATE, "n_mels": 64, "f_min": 64, "normalized": True, "alphas": False}

    def encodec_mel(start, stop):
        return spectra.MultiScaleMelSpectrogramLoss(**common, range_start=start, range_end=stop)

    def resolution(count):
        sizes = {"n_ffts": [512, 1024, 2048], "hop_lengths": [50, 120, 240]}
        sizes = {name: x[:count] for name, x in (sizes | {"win_lengths": [240, 600, 1200]}).items()}
        return resolutions.MRSTFTLoss(**sizes, factor_sc=0.5, factor_mag=0.5)

    def dac_mel(windows, bands):
        sizes = {"window_lengths": windows, "n_mels": bands}
        ends = {"mel_fmin": [0] * len(bands), "mel_fmax": [None] * len(bands)}
        return signals(dac.MelSpectrogramLoss(**sizes, **ends, pow=1.0, mag_weight=0.0))

    def signals(loss):
        return lambda x, y: loss(*(AudioSignal(each, DESCRIPT_RATE) for each in (x, y)))

    return {
        "encodec_mel": encodec_mel(6, 11),
        "encodec_mel_paper": encodec_mel(5, 12),
        "encodec_mel_small": encodec_mel(6, 7),
        "multi_resolution_stft": resolution(3),
        "multi_resolution_stft_small": resolution(1),
        "dac_mel": dac_mel([32 * 2**i for i in range(7)], [5 * 2**i for i in range(7)]),
        "dac_mel_small": dac_mel([2048], [320]),
        "dac_stft": signals(dac.MultiScaleSTFTLoss()),
        "dac_stft_small": signals(dac.MultiScaleSTFTLoss([512])),
        # Which takes the original first.
        "si_sdr_loss": lambda x, y: dac.SISDRLoss()(y, x),
        "l1": torch.nn.L1Loss(),
    }


def in_double_precision():
    """Makes audiotools compute as its signals are: its windows and filters are float32."""
    window, filters = AudioSignal.get_window, AudioSignal.get_mel_filters
    AudioSignal.get_window = staticmethod(lambda *args: window(*args).double())
    AudioSignal.get_mel_filters = staticmethod(lambda **args: filters(**args).astype(np.float64))


def balancer_steps(folder: Path, rng) -> dict[str, np.ndarray]:
    """Several updates of three losses whose gradients are of very different size."""
    weights = {"adversarial": 4.0, "features": 1.5, "waveform": 0.1}
    sizes = {"adversarial": 1e3, "features": 1e-4, "waveform": 1.0}
    balancers = {
        "item": part(folder, "balancer").Balancer(weights),
        "batch": part(folder, "balancer").Balancer(
            weights, total_norm=2.0, ema_decay=0.9, per_batch_item=False
        ),
    }
    found = {f"balancer_{name}": [] for name in (*weights, *balancers)}
    for step in range(5):
        gradients = {n: sizes[n] * rng.normal(size=(3, 2, 50)).astype(np.float32) for n in weights}
        # One item is silent, and then one loss.
        gradients["adversarial"][1] = 0.0
        if step == 2:
            gradients["features"][:] = 0.0
        for name, x in gradients.items():
            found[f"balancer_{name}"].append(x)
        for name, balancer in balancers.items():
            decoded = torch.zeros(3, 2, 50, requires_grad=True)
            balancer.backward(
                {n: (decoded * torch.from_numpy(x)).sum() for n, x in gradients.items()}, decoded
            )
            found[f"balancer_{name}"].append(decoded.grad.numpy())
    return {name: np.stack(x) for name, x in found.items()}


def main(folder: Path):
    rng = np.random.default_rng(0)
    original = 0.1 * rng.normal(size=(2, 2, SAMPLES)).astype(np.float32)
    # One item lower than the other by far, and both near the original, as a codec's output is.
    original[1] *= 0.01
    estimate = 0.9 * original + 0.3 * original.std(axis=(1, 2), keepdims=True) * rng.normal(
        size=original.shape
    )
    arrays = {"original": original, "estimate": estimate.astype(np.float32)}
    in_double_precision()
    for name, loss in losses(folder).items():
        loss = loss.double() if isinstance(loss, torch.nn.Module) else loss
        x = torch.from_numpy(arrays["estimate"]).double().requires_grad_()
        value = loss(x, torch.from_numpy(original).double()).squeeze()
        value.backward()
        arrays[name] = value.detach().numpy()
        arrays[f"{name}_gradient"] = x.grad[..., ::8].float().numpy()
    arrays |= balancer_steps(folder, rng)
    packages = ["torch", "torchaudio", "descript-audio-codec", "descript-audiotools", "flashy"]
    versions = [f"{name} {version(name)}" for name in packages]
    lines = (folder / "PKG-INFO").read_text().splitlines()
    versions += ["audiocraft " + next(x for x in lines if x.startswith("Version:")).split()[1]]
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays, versions=np.array(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
