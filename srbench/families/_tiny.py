"""Tiny twins: the real classes of a family with random weights, made when first needed.

The same recipe gives the same bytes; a twin lies in srbench's own cache folder, outside
any repository, and is made anew if it is deleted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from srbench.families._weights import TINY, TINY_VERSION, Weights, own_cache

WIDTH = 32  # of the text embeddings
SEED = 20250521


def make_if_missing(weights: Weights) -> None:
    """Make the twin that `weights` asks for, unless it is there or none is meant.

    Raises KeyError for a kind that has no recipe.
    """
    if not weights.is_tiny:
        return
    kind = weights.source.removeprefix(TINY).partition("/")[0]
    target = own_cache() / "tiny" / f"{kind}-{TINY_VERSION}"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        made = Path(folder) / "twin"
        make(kind, made)
        try:
            made.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(made)


def make(kind: str, folder: Path) -> None:
    """Write the twin of a kind of family to `folder`, in diffusers layout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        RECIPES[kind](folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: any text in any language, and texts that differ get other tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def text_encoder(model: Any, config: Any, vocabulary: int) -> Any:
    """Two layers of UMT5 or T5."""
    sizes = {"d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return model(
        config(
            vocab_size=vocabulary,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            **sizes,
        )
    ).eval()


def wan(folder: Path) -> None:
    """One pipeline folder with `transformer` (4 heads) and `transformer_2` (2 heads)."""

    def transformer(heads: int) -> WanTransformer3DModel:
        return WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=16,
            num_layers=2,
            ffn_dim=32 * heads,
            freq_dim=32,
            text_dim=WIDTH,
            rope_max_seq_len=32,
        )

    tokenizer = byte_tokenizer()
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder(UMT5EncoderModel, UMT5Config, len(tokenizer)),
        vae=AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
        ),
        transformer=transformer(4),
        transformer_2=transformer(2),
        boundary_ratio=None,
    ).save_pretrained(folder, safe_serialization=True)


def cogvideox(folder: Path) -> None:
    """Two pipeline folders: `large` (4 heads, rotary) and `small` (2 heads, sin-cos).

    They differ as 5B and 2B do: positions, the VAE's scaling factor, the schedule's shift.
    """

    def transformer(heads: int, rotary: bool) -> CogVideoXTransformer3DModel:
        return CogVideoXTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=16,
            time_embed_dim=32,
            text_embed_dim=WIDTH,
            num_layers=2,
            sample_width=8,
            sample_height=8,
            sample_frames=9,
            use_rotary_positional_embeddings=rotary,
        )

    def vae(scale: float) -> AutoencoderKLCogVideoX:
        return AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=scale
        )

    def scheduler(shift: float) -> CogVideoXDDIMScheduler:
        return CogVideoXDDIMScheduler(
            clip_sample=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
            snr_shift_scale=shift,
        )

    tokenizer = byte_tokenizer()
    CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder(T5EncoderModel, T5Config, len(tokenizer)),
        vae=vae(0.7),
        transformer=transformer(4, rotary=True),
        scheduler=scheduler(1.0),
    ).save_pretrained(folder / "large", safe_serialization=True)
    transformer(2, rotary=False).save_pretrained(folder / "small" / "transformer")
    scheduler(3.0).save_pretrained(folder / "small" / "scheduler")
    vae(1.15258426).save_config(folder / "small" / "vae")


RECIPES: dict[str, Callable[[Path], None]] = {"wan": wan, "cogvideox": cogvideox}
