"""Train the large and the small denoiser side by side, on the same batches.

Flow matching on normalised latents: x_σ = (1 − σ) x + σ ε, the model predicts ε − x,
as Wan does.  The text encoder is frozen; one caption in ten is empty, for guidance.
Latents come from a pool that `encode_pool` fills once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5EncoderModel

from srbench.shapes import train_text, train_vae
from srbench.shapes.render import render
from srbench.shapes.training import Average, Group, checkpoint, restore, warm_cosine
from srbench.shapes.world import scenes

SHIFT, EMPTY, DECAY = 3.0, 0.1, 0.999
_COMMON = {
    "patch_size": (1, 2, 2),
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 64,
    "freq_dim": 64,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 64,
}
LARGE = {**_COMMON, "num_attention_heads": 4, "attention_head_dim": 64, "ffn_dim": 1024, "num_layers": 8}
SMALL = {**_COMMON, "num_attention_heads": 3, "attention_head_dim": 48, "ffn_dim": 432, "num_layers": 3}


def load_vae(out: Path) -> AutoencoderKLWan:
    """The trained VAE: the average over its training."""
    vae = AutoencoderKLWan(**train_vae.CONFIG)
    tensors = load_file(out / "vae.safetensors")
    vae.load_state_dict(
        {k.removeprefix("average/"): v for k, v in tensors.items() if k.startswith("average/")}
    )
    return vae.eval()


@torch.no_grad()
def encode_pool(out: Path, count: int, seed: int, things: int) -> None:
    """Encode `count` clips of the train split; latents as the VAE gives them, fp16.

    Writes `out/pool{things}-{rank}.safetensors`: latents (n, 16, 5, 8, 8), caption (n,).
    """
    group = Group.join()
    path = out / f"pool{things}-{group.rank}.safetensors"
    if path.exists():
        return
    vae, rng = load_vae(out), group.rng(seed, things)
    pool = scenes(1 if things == 1 else 2, "train")
    latents, captions = [], []
    for i in range(0, count // group.size, 8):
        index = rng.integers(len(pool), size=8)
        videos = [render(pool[j], int(rng.integers(2**31))) for j in index]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(train_vae.to_model(np.stack(videos))).latent_dist
        latents.append(posterior.mode().half())
        captions += index.tolist()
        if i % 1000 == 0:
            print(f"pool{things} rank {group.rank}: {i}", flush=True)
    save_file({"latents": torch.cat(latents), "caption": torch.tensor(captions)}, path)


@dataclass
class Pool:
    """Latents in memory, with the text of every caption encoded once."""

    latents: Tensor
    caption: Tensor
    texts: Tensor

    @classmethod
    def load(cls, out: Path, things: int, encode: Callable[[list[str]], Tensor]) -> Pool:
        parts = [load_file(p) for p in sorted(out.glob(f"pool{things}-*.safetensors"))]
        captions = [s.caption for s in scenes(1 if things == 1 else 2, "train")]
        texts = torch.cat([encode(captions[i : i + 256]) for i in range(0, len(captions), 256)])
        return cls(
            torch.cat([p["latents"] for p in parts]),
            torch.cat([p["caption"] for p in parts]),
            texts,
        )

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(rng.integers(len(self.latents), size=n))
        return self.latents[index].float(), self.texts[self.caption[index]]


def latent_statistics(pools: list[Pool]) -> tuple[Tensor, Tensor]:
    """Mean and spread of every latent channel: (16,) each."""
    sample = torch.cat([p.latents[:4000].float() for p in pools])
    return sample.mean((0, 2, 3, 4)), sample.std((0, 2, 3, 4))


def make_optimisers(model: nn.Module, muon: float, adam: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for all else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        (matrices if p.ndim == 2 and name.startswith("blocks.") else others).append(p)
    return [
        torch.optim.Muon(matrices, lr=muon, weight_decay=0.01),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Learner:
    """One denoiser with its optimisers and its average."""

    def __init__(self, config: dict, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = WanTransformer3DModel(**config)
        self.average = Average(self.model, DECAY)
        self.optimisers = make_optimisers(self.model, 0.02, 2e-3)
        self.rates = [0.02, 2e-3]

    @property
    def _held(self) -> dict[str, dict[str, Tensor]]:
        return {"model": self.model.state_dict(), "average": self.average.values}

    def restore(self, path: Path) -> int:
        """Go on from a checkpoint, if there is one; the number of the next step."""
        return restore(path, self._held, self.optimisers) if path.exists() else 0

    def checkpoint(self, path: Path, step: int) -> None:
        checkpoint(path, step, self._held, self.optimisers)

    def learn(
        self, batch: tuple[Tensor, Tensor, Tensor, Tensor], factor: float, group: Group, step: int
    ) -> float:
        noisy, times, texts, target = batch
        with (
            torch.autocast("cpu", dtype=torch.bfloat16),
            nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
        ):
            predicted = self.model(noisy, times, texts, return_dict=False)[0]
        loss = (predicted.float() - target).square().mean()
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        parameters = list(self.model.parameters())
        group.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for g in optimiser.param_groups:
                g["lr"] = rate * factor
            optimiser.step()
        self.average.update(self.model, step)
        return loss.item()


class Data:
    """Batches of (noisy, times, texts, target), drawn from (seed, step, rank) alone."""

    def __init__(self, out: Path, group: Group) -> None:
        tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
        encoder = UMT5EncoderModel.from_pretrained(out / "text_encoder").eval()

        def encode(texts: list[str]) -> Tensor:
            with torch.no_grad():
                return train_text.encode(encoder, tokenizer, texts)

        self.group = group
        self.empty = encode([""])[0]
        self.pools = [Pool.load(out, n, encode) for n in (1, 2)]
        self.mean, self.std = (v[:, None, None, None] for v in latent_statistics(self.pools))

    def batch(self, seed: int, step: int, n: int, single: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw n clips, a share `single` of them with one thing.

        σ is logit-normal and shifted by 3; one caption in ten is empty.
        """
        rng = self.group.rng(seed, 7, step)
        ones = int(rng.binomial(n, single))
        drawn = [p.draw(rng, k) for p, k in zip(self.pools, (ones, n - ones), strict=True) if k]
        x = (torch.cat([d[0] for d in drawn]) - self.mean) / self.std
        texts = torch.cat([d[1] for d in drawn]).clone()
        texts[torch.from_numpy(rng.random(n) < EMPTY)] = self.empty
        u = torch.sigmoid(torch.from_numpy(rng.standard_normal(n))).float()
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        eps = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        s = sigma[:, None, None, None, None]
        return (1 - s) * x + s * eps, sigma * 1000, texts, eps - x


def train(out: Path, steps: int, seed: int, batch: int = 16, one_first: float = 0.15) -> None:
    """`steps` steps of `batch` clips a process; single things alone in the first part.

    Each denoiser has a checkpoint of its own.  One that is behind, as it was begun later,
    first catches up alone: a batch depends on (seed, step, rank), so it sees what the other saw.
    """
    group = Group.join()
    data = Data(out, group)
    learners = {"large": Learner(LARGE, seed), "small": Learner(SMALL, seed + 1)}
    first = {name: learner.restore(out / f"{name}.safetensors") for name, learner in learners.items()}
    began, smooth = time.time(), dict.fromkeys(learners, 0.0)
    for step in range(min(first.values()), steps):
        examples = data.batch(seed, step, batch, 1.0 if step < one_first * steps else 0.3)
        for name, learner in learners.items():
            if step < first[name]:
                continue
            loss = learner.learn(examples, warm_cosine(step, steps, 200), group, step)
            smooth[name] = 0.98 * smooth[name] + 0.02 * loss if smooth[name] else loss
        if group.rank == 0 and (step % 100 == 0 or step == steps - 1):
            told = " ".join(f"{n} {v:.4f}" for n, v in smooth.items())
            print(f"denoisers {step} loss {told} {time.time() - began:.0f}s", flush=True)
        if group.rank == 0 and (step % 250 == 249 or step == steps - 1):
            for name, learner in learners.items():
                if step >= first[name]:
                    learner.checkpoint(out / f"{name}.safetensors", step + 1)
