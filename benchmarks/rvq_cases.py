"""The problem of residual quantization that benchmarks share, and EnCodec's encode in torch."""

import numpy as np

D, K, N = 128, 8, 2048


def problem(count, dim=D):
    """Vectors `[M, D]` and codebooks `[K, N, D]` whose levels shrink as those of data do."""
    rng = np.random.default_rng(0)
    scale_K11 = 0.8 ** np.arange(K)[:, None, None]
    books_KND = (rng.standard_normal((K, N, dim)) * scale_K11).astype(np.float32)
    return rng.standard_normal((count, dim)).astype(np.float32), books_KND


def torch_encode(residual_MD, books_KND):
    """EnCodec's encode: all distances of a level, then their argmax."""
    import torch

    codes = []
    for book_ND in books_KND:
        product_MN = residual_MD @ book_ND.T
        square_M1 = residual_MD.pow(2).sum(1, keepdim=True)
        distance_MN = square_M1 - 2 * product_MN + book_ND.pow(2).sum(1)
        codes.append((-distance_MN).max(dim=1).indices)
        residual_MD = residual_MD - book_ND[codes[-1]]
    return torch.stack(codes)


def torch_compiled(latents_MD, books_KND, dtype="float32", device="cuda"):
    """`torch_encode` as a call that waits, through torch.compile on a GPU."""
    import torch

    encode = torch.compile(torch_encode) if device == "cuda" else torch_encode
    inputs = [torch.tensor(x).to(device, getattr(torch, dtype)) for x in (latents_MD, books_KND)]

    def call():
        encode(*inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    return torch.no_grad()(call)
