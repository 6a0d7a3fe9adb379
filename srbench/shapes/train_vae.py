"""Train the family's `AutoencoderKLWan` on full-length clips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.shapes.render import SIZE, layout, render
from srbench.shapes.training import Average, Curriculum, Group, checkpoint, restore, warm_cosine
from srbench.shapes.world import scenes

# As Wan 2.2's VAE, half-size inside (patch_size 2) and with parameter-free shortcuts:
# three times faster, and colours are right from the first minute.
CONFIG = {
    "base_dim": 16,
    "decoder_base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "is_residual": True,
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 8,
}
CROP, KL_WEIGHT, FIRST_FRAME = 32, 1e-3, 4.0
MUON, ADAM = 0.02, 2e-3


def to_model(video: NDArray[np.uint8]) -> Tensor:
    """uint8 (..., T, H, W, 3) → float32 (..., 3, T, H, W) in [-1, 1]."""
    return torch.from_numpy(video).float().movedim(-1, -4) / 127.5 - 1


def clips(rng: np.random.Generator, n: int, size: int) -> Tensor:
    """(n, 3, 17, size, size): clips of the train split, cropped around a thing if smaller."""
    videos = []
    for scene in Curriculum(0.3).draw(rng, n):
        seed = int(rng.integers(2**31))
        where = layout(scene, seed)
        frame, thing = rng.integers(len(where.centres)), rng.integers(len(where.radii))
        corner = where.centres[frame, thing] - size / 2 + rng.uniform(-12, 12, 2)
        x, y = np.clip(corner, 0, SIZE - size).astype(int)
        videos.append(render(scene, seed)[:, y : y + size, x : x + size])
    return to_model(np.stack(videos))


def split(vae: AutoencoderKLWan) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Convolution kernels, which Muon takes as matrices, and all else."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for p in vae.parameters():
        (kernels if p.ndim >= 4 and len(p) > 1 and p[0].numel() > 4 else others).append(p)
    return kernels, others


def psnr(vae: AutoencoderKLWan, n: int = 16) -> tuple[float, float, float]:
    """Mean, worst-clip and first-frame PSNR (dB) over n full clips of the tune split."""
    values, firsts = [], []
    pool = scenes(2, "tune")
    for i in range(n):
        x = to_model(render(pool[i * 37 % len(pool)], 10_000 + i))[None]
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mode()).sample
        mse = ((y - x) / 2).square().mean((0, 1, 3, 4))
        values.append(float((-10 * mse.log10()).mean()))
        firsts.append(float(-10 * mse[0].log10()))
    return float(np.mean(values)), min(values), float(np.mean(firsts))


class Learner:
    """The VAE with its optimisers and its average."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.vae = AutoencoderKLWan(**CONFIG)
        with torch.no_grad():  # begin with little noise (σ = e⁻²), or nothing is learnt for long
            self.vae.quant_conv.weight[self.vae.config.z_dim :] = 0
            self.vae.quant_conv.bias[self.vae.config.z_dim :] = -4
        self.average = Average(self.vae, 0.997)
        self.parameters = list(self.vae.parameters())
        self.kernels, others = split(self.vae)
        self.matrices = [nn.Parameter(k.data.view(len(k), -1)) for k in self.kernels]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(self.matrices, lr=MUON, weight_decay=0.0),
            torch.optim.AdamW(others, lr=ADAM, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        self.held = {"model": self.vae.state_dict(), "average": self.average.values}

    def loss(self, x: Tensor) -> tuple[Tensor, float]:
        """L1 + MSE, the first frame weighted, plus KL; and KL alone, a mean over the latent."""
        weight = torch.ones(x.shape[2])
        weight[0] = FIRST_FRAME
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = self.vae.encode(x).latent_dist
            y = self.vae.decode(posterior.sample()).sample.float()
        error = (y - x).abs() + (y - x).square()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return ((weight / weight.mean())[:, None, None] * error).mean() + KL_WEIGHT * kl, kl.item()

    def learn(self, loss: Tensor, factor: float, group: Group, step: int) -> None:
        """One step down; `factor` scales both learning rates."""
        self.vae.zero_grad()
        loss.backward()
        group.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.view_as(matrix)
        for optimiser, rate in zip(self.optimisers, (MUON, ADAM), strict=True):
            for g in optimiser.param_groups:
                g["lr"] = rate * factor
            optimiser.step()
        self.average.update(self.vae, step)


def train(out: Path, steps: int, seed: int, batch: int = 3) -> None:
    """Crops of 32 pixels at full length; whole frames, one at a time, in the last 15 %."""
    group, learner = Group.join(), Learner(seed)
    path, began = out / "vae.safetensors", time.time()
    first = restore(path, learner.held, learner.optimisers) if path.exists() else 0
    for step in range(first, steps):
        whole = step > 0.85 * steps
        x = clips(group.rng(seed, step), 1 if whole else batch, SIZE if whole else CROP)
        torch.manual_seed(int(group.rng(seed, step, 1).integers(2**31)))
        loss, kl = learner.loss(x)
        learner.learn(loss, warm_cosine(step, steps, 30), group, step)
        if group.rank == 0 and (step % 50 == 0 or step == steps - 1):
            print(f"vae {step} loss {loss.item():.4f} kl {kl:.2f} {time.time() - began:.0f}s", flush=True)
        if group.rank == 0 and (step % 500 == 499 or step == steps - 1):
            checkpoint(path, step + 1, learner.held, learner.optimisers)
            probe = AutoencoderKLWan(**CONFIG)
            probe.load_state_dict(learner.average.values)
            mean, worst, first_frame = psnr(probe, 4)
            print(f"vae psnr mean {mean:.2f} worst {worst:.2f} first {first_frame:.2f} dB", flush=True)
