"""Put the trained parts into one folder in diffusers layout, which stock pipelines load."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, UMT5EncoderModel

from srbench.shapes.train_denoisers import LARGE, SMALL, Pool, latent_statistics, load_vae

MODEL = Path(__file__).parent / "model"


def export(out: Path, target: Path = MODEL) -> None:
    """Averages of all models, in fp16; the text encoder in fp32, since transformers would
    keep one stored in fp16 at that precision.
    """
    models = {}
    for name, config in (("large", LARGE), ("small", SMALL)):
        model = WanTransformer3DModel(**config)
        tensors, prefix = load_file(out / f"{name}.safetensors"), "average/"
        model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        models[name] = model.half()
    vae = load_vae(out)
    empty = torch.zeros(1, 32, 64)
    pools = [Pool.load(out, n, lambda texts: empty.expand(len(texts), -1, -1)) for n in (1, 2)]
    mean, std = latent_statistics(pools)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    pipeline = WanPipeline(
        tokenizer=AutoTokenizer.from_pretrained(out / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(out / "text_encoder"),
        vae=vae.half(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, num_train_timesteps=1000
        ),
        transformer=models["large"],
        transformer_2=models["small"],
        boundary_ratio=None,
    )
    pipeline.save_pretrained(target, safe_serialization=True)
    print(f"wrote {target}, {sum(f.stat().st_size for f in target.rglob('*') if f.is_file()) / 1e6:.1f} MB")
