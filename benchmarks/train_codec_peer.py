"""The torch originals' update with discriminators: a process that `train_codec.py` asks.

EnCodec of package encodec: its model and MS-STFT discriminators. What that package leaves out,
losses and balancer, is written here as audiocraft has it, but that each mel spectrum is worked out
once. DAC of package descript-audio-codec: model, discriminators and losses are its own, in the
order of its scripts/train.py, without the data loader and its transforms.

Command:  python benchmarks/train_codec_peer.py encodec_24khz 2, then a line for each update
Needs:    pip install encodec descript-audio-codec torchaudio
"""

import json
import sys
import time
import warnings

import numpy as np
from train_codec_cases import CASES, Memory, audio_of


def encodec_24khz(audio: np.ndarray):
    """A call that does one update of both networks, and the networks."""
    import torch
    from encodec import EncodecModel
    from encodec.msstftd import MultiScaleSTFTDiscriminator
    from torch.nn import functional
    from torchaudio.transforms import MelSpectrogram

    model = EncodecModel.encodec_model_24khz(pretrained=False).train()
    for level in model.quantizer.vq.layers:
        level._codebook.kmeans_iters = 1  # of the first update, which is not timed: 50 take minutes
    windows = [2048, 1024, 512, 256, 128]
    hops = [window // 4 for window in windows]
    judge = MultiScaleSTFTDiscriminator(32, n_ffts=windows, hop_lengths=hops, win_lengths=windows)
    options = {"lr": 3e-4, "betas": (0.5, 0.9)}
    tune, tune_judge = (torch.optim.Adam(x.parameters(), **options) for x in (model, judge))
    weights = {"l1": 0.1, "mel": 1.0, "adversarial": 3.0, "features": 3.0}
    means, updates = dict.fromkeys(weights, 0.0), 0
    mels = [
        MelSpectrogram(
            24_000, 2**i, hop_length=2**i // 4, f_min=64, n_mels=64, normalized=True, center=False
        )
        for i in range(6, 11)
    ]
    real = torch.from_numpy(audio).mT.contiguous()

    def mel_loss(fake, real):
        total, weight = 0.0, 0.0
        for i, mel in zip(range(6, 11), mels, strict=True):
            alpha, side = (2**i - 1) ** 0.5, (2**i - 2**i // 4) // 2
            x, y = (mel(functional.pad(z, (side, side), "reflect")) for z in (fake, real))
            logs = (torch.log10(1e-5 + z) for z in (x, y))
            total = total + functional.l1_loss(x, y) + alpha * functional.mse_loss(*logs)
            weight += alpha + 1
        return total / weight

    def judged(fake):
        """Losses of the generator by the discriminators, which take no gradient here."""
        judge.requires_grad_(False)
        (scores, features), (_, real_features) = judge(fake), judge(real)
        judge.requires_grad_(True)
        adversarial = -sum(score.mean() for score in scores) / len(scores)
        matching = sum(
            functional.l1_loss(x, y) / len(one)
            for one, other in zip(features, real_features, strict=True)
            for x, y in zip(one, other, strict=True)
        )
        return adversarial, matching / len(scores)

    def judge_step(fake):
        (scores, _), (real_scores, _) = judge(fake), judge(real)
        loss = sum(
            functional.relu(1 + x).mean() + functional.relu(1 - y).mean()
            for x, y in zip(scores, real_scores, strict=True)
        )
        tune_judge.zero_grad()
        (loss / len(scores)).backward()
        tune_judge.step()

    def step():
        nonlocal updates
        latents = model.encoder(real)
        out = model.quantizer(latents, model.frame_rate, 24.0)
        fake = model.decoder(out.quantized)
        judge_step(fake.detach())
        losses = {"l1": functional.l1_loss(fake, real), "mel": mel_loss(fake, real)}
        losses["adversarial"], losses["features"] = judged(fake)
        out.penalty.backward(retain_graph=True)
        updates += 1
        total = torch.zeros_like(fake)
        for name, loss in losses.items():
            (grad,) = torch.autograd.grad(loss, [fake], retain_graph=True)
            means[name] = 0.999 * means[name] + grad.norm(dim=(1, 2)).mean().item()
            size = means[name] * (1 - 0.999) / (1 - 0.999**updates)
            total += grad * (weights[name] / sum(weights.values()) / (1e-12 + size))
        fake.backward(total)
        tune.step()
        tune.zero_grad()

    return step, model, judge


def dac_44khz(audio: np.ndarray):
    """A call that does one update of both networks, and the networks."""
    import torch
    from audiotools import AudioSignal
    from dac.model import DAC, Discriminator
    from dac.nn.loss import GANLoss, L1Loss, MelSpectrogramLoss, MultiScaleSTFTLoss

    model, judge = DAC(quantizer_dropout=0.5).train(), Discriminator().train()
    options = {"lr": 1e-4, "betas": (0.8, 0.99)}
    tune, tune_judge = (torch.optim.AdamW(x.parameters(), **options) for x in (model, judge))
    schedules = [torch.optim.lr_scheduler.ExponentialLR(x, 0.999996) for x in (tune, tune_judge)]
    gan, waveform, stft = GANLoss(judge), L1Loss(), MultiScaleSTFTLoss()
    count = 7
    mel = MelSpectrogramLoss(
        n_mels=[5 * 2**i for i in range(count)],
        window_lengths=[32 * 2**i for i in range(count)],
        mel_fmin=[0.0] * count,
        mel_fmax=[None] * count,
        pow=1.0,
        mag_weight=0.0,
    )
    sound = torch.from_numpy(audio).mT.contiguous()

    def step():
        # A signal keeps its last spectrum, so that each step begins with a new one.
        real = AudioSignal(sound.clone(), 44_100)
        out = model(real.audio_data, 44_100)
        fake = AudioSignal(out["audio"], 44_100)
        tune_judge.zero_grad()
        gan.discriminator_loss(fake, real).backward()
        torch.nn.utils.clip_grad_norm_(judge.parameters(), 10.0)
        tune_judge.step()
        stft(fake, real), waveform(fake, real)  # shown to the user, without a weight
        spectral = mel(fake, real)
        adversarial, features = gan.generator_loss(fake, real)
        codebooks = 0.25 * out["vq/commitment_loss"] + out["vq/codebook_loss"]
        tune.zero_grad()
        (15 * spectral + 2 * features + adversarial + codebooks).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3)
        tune.step()
        for schedule in schedules:
            schedule.step()

    return step, model, judge


def main() -> None:
    import torch

    warnings.filterwarnings("ignore")  # of empty mel bands, and of what torch will rename
    case = CASES[sys.argv[1]]
    torch.manual_seed(0)
    torch.set_num_threads(int(sys.argv[2]))
    make = {"encodec_24khz": encodec_24khz, "dac_44khz": dac_44khz}[case.name]
    memory = Memory()
    step, *networks = make(audio_of(case))
    step()  # codebooks begin by k-means, optimizers make their state
    step()
    memory.begin()
    sizes = [sum(x.numel() for x in network.parameters()) for network in networks]
    print(json.dumps({"parameters": sizes, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        began, spent = time.perf_counter(), time.process_time()
        step()
        times = time.perf_counter() - began, time.process_time() - spent
        print(json.dumps(times), flush=True)
    print(json.dumps(memory.peak()), flush=True)


if __name__ == "__main__":
    main()
