"""A LoRA's tensors, read and fused into a model; every part of the file is applied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from srbench.errors import UserError
from srbench.families import _lora
from srbench.families._checkpoint import Fault, Shapes

if TYPE_CHECKING:
    from srbench.families._settings import FamilySettings


@dataclass(frozen=True)
class Update:
    """What a LoRA changes.

    pairs: A and B by diffusers' keys, alpha / rank folded in.  differences: by parameter, added as they are.
    metadata: the LoRA's configuration, where the file has one.
    """

    file: Path
    pairs: Mapping[str, Tensor]
    differences: Mapping[str, Tensor]
    metadata: Mapping[str, Any] | None


def read(file: Path, known: Shapes, family: FamilySettings) -> Update:
    """A LoRA for the model with these tensors.  Raises UserError where a part of it cannot be applied."""
    try:
        _lora.check(file, known, family)
        tensors = load_file(file)
        told = _lora.parts(tensors, known, family)
        metadata = _lora.metadata(file)
    except Fault as fault:
        got, expected, *do = fault.args
        raise UserError(f"{file}: {got}", expected, *(do or ["take another file"])) from None
    by_part = {part: tensors[key] for key, part in told.items()}
    pairs, differences = dict[str, Tensor](), dict[str, Tensor]()
    for part, tensor in by_part.items():
        if part.kind in ("weight", "bias"):
            differences[part.target] = tensor
        elif part.kind == "A":
            a, b = tensor, by_part[_lora.Part("B", part.target)]
            factor = _factor(file, by_part.get(_lora.Part("alpha", part.target)), a, part.target)
            down, up = _split(factor)
            # A first: diffusers tells a LoRA by its first key
            pairs[f"transformer.{part.target}.lora_A.weight"] = a * down if down != 1 else a
            pairs[f"transformer.{part.target}.lora_B.weight"] = b * up if up != 1 else b
            if (bias := by_part.get(_lora.Part("B bias", part.target))) is not None:
                pairs[f"transformer.{part.target}.lora_B.bias"] = bias * factor if factor != 1 else bias
    return Update(file, pairs, differences, metadata)


def _factor(file: Path, alpha: Tensor | None, a: Tensor, layer: str) -> float:
    """Alpha / rank; 1 where the file has no alpha."""
    if alpha is None:
        return 1.0
    value = float(alpha)
    if not math.isfinite(value):
        raise UserError(f"{file}: alpha of {layer} = {value}", "a number", "take another file")
    return value / a.shape[0]


def _split(factor: float) -> tuple[float, float]:
    """Factors of A and of B whose product it is: powers of two move to B, as in diffusers' own conversion."""
    down, up = factor, 1.0
    while 0 < down * 2 < up:
        down, up = down * 2, up / 2
    return down, up


@torch.no_grad()
def fuse(model: Any, update: Update, scale: float) -> None:
    """As the stock pipeline fuses a LoRA, on the CPU; nothing of peft is left on the model.

    Raises UserError where peft does not take every pair.
    """
    if update.pairs:
        asked = {k.removeprefix("transformer.").partition(".lora_")[0] for k in update.pairs}
        # which layers it is for, the keys themselves say
        about = update.metadata and {**update.metadata, "target_modules": sorted(asked)}
        metadata = about and {f"transformer.{k}": v for k, v in about.items()}
        try:
            model.load_lora_adapter(dict(update.pairs), metadata=metadata)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            line = next(iter(str(error).splitlines()), "")
            do = "save it by diffusers' save_lora_weights"
            raise UserError(f"{update.file}: {line}", "a LoRA that peft can load", do) from error
        there = {n.removesuffix(".lora_A") for n, _ in model.named_modules() if n.endswith(".lora_A")}
        if there != asked:
            first = sorted(there ^ asked)[0]
            got = f"{update.file}: its pair for {first} is not what peft attached"
            raise UserError(got, "every pair applied", "save it by diffusers' save_lora_weights")
        model.fuse_lora(lora_scale=scale)
        model.unload_lora()
    parameters = dict(model.named_parameters())
    for name, difference in update.differences.items():
        parameter = parameters[name]
        parameter.copy_(parameter.float() + scale * difference.float())
