"""Train the family's text encoder, once, to say at every word what the whole scene is.

A UMT5 encoder that predicts, from each token, both things' attributes, their order in
space, the motion and the background.  It is then frozen for both denoisers, as UMT5-XXL
is for Wan: large and small read the same text.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from srbench.shapes.training import warm_cosine
from srbench.shapes.world import BACKGROUNDS, COLOURS, MOTIONS, RELATIONS, SHAPES, Scene, scenes

TEXT_LENGTH = 32
_ATTRIBUTES = {
    "first colour": list(COLOURS),
    "first shape": list(SHAPES),
    "second colour": ["none", *COLOURS],
    "second shape": ["none", *SHAPES],
    "relation": ["none", *RELATIONS],
    "motion": list(MOTIONS),
    "background": list(BACKGROUNDS),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of this world's vocabulary that `AutoTokenizer` loads."""
    words = sorted({w for n in (1, 2) for s in scenes(n) for w in s.caption.split()})
    vocabulary = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )


def make_encoder(vocabulary: int) -> UMT5EncoderModel:
    """The encoder, untrained: two layers, width 64."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=64,
            d_kv=16,
            d_ff=128,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def encode(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """(len(texts), 32, 64): zero rows after the text's end, as `WanPipeline` makes them."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None]


def labels(scene: Scene) -> list[int]:
    """The class of every attribute of a scene, in the order of `_ATTRIBUTES`."""
    canonical = scene.canonical
    second = canonical.things[1] if len(canonical.things) == 2 else None
    values = [
        canonical.things[0].colour,
        canonical.things[0].shape,
        second.colour if second else "none",
        second.shape if second else "none",
        canonical.relation or "none",
        scene.motion,
        scene.background,
    ]
    return [names.index(v) for names, v in zip(_ATTRIBUTES.values(), values, strict=True)]


def train(out: Path, steps: int, seed: int, batch: int = 64) -> None:
    """Cross-entropy of every attribute at every word; saves `out/text_encoder`, `out/tokenizer`."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    encoder = make_encoder(len(tokenizer))
    heads = nn.ModuleList([nn.Linear(64, len(v)) for v in _ATTRIBUTES.values()])
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=1e-2)
    pool = [*scenes(1, "train") * 20, *scenes(2, "train")]
    for step in range(steps):
        picked = [pool[i] for i in torch.randint(len(pool), (batch,))]
        hidden = encode(encoder, tokenizer, [s.caption for s in picked])
        used = hidden.abs().sum(-1) > 0
        target = torch.tensor([labels(s) for s in picked])
        losses = [
            nn.functional.cross_entropy(head(hidden)[used], target[:, i, None].expand(used.shape)[used])
            for i, head in enumerate(heads)
        ]
        optimiser.zero_grad()
        sum(losses, torch.zeros(())).backward()
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * warm_cosine(step, steps)
        optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"text {step} loss {sum(x.item() for x in losses):.4f}", flush=True)
    print(f"text accuracy on tune captions {accuracy(encoder, tokenizer, heads):.4f}", flush=True)
    encoder.save_pretrained(out / "text_encoder")
    tokenizer.save_pretrained(out / "tokenizer")


@torch.no_grad()
def accuracy(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, heads: nn.ModuleList) -> float:
    """Share of (word, attribute) pairs told right on the tune split."""
    picked = [*scenes(1, "tune"), *scenes(2, "tune")[::5]]
    hidden = encode(encoder, tokenizer, [s.caption for s in picked])
    used = hidden.abs().sum(-1) > 0
    target = torch.tensor([labels(s) for s in picked])
    right = [
        (head(hidden).argmax(-1) == target[:, i, None])[used].float().mean() for i, head in enumerate(heads)
    ]
    return float(torch.stack(right).mean())
