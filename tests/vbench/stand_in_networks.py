"""Imported by VBench's environment in place of four of its networks: GRiT, Tag2Text, ViCLIP, UMT.

Those are gigabytes, or want detectron2.  What they would say is read off a frame's mean brightness
here, so that VBench's own code (which frames it takes, what counts, its means, its files) runs to
the end in seconds.  A score that comes out means nothing.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from timm.models.registry import register_model

BRIGHT = 128.0  # from here on a frame shows what its prompt asks for


class DenseCaptioning:
    """GRiT: objects with a caption, a box (x0, y0, x1, y1) and the names of all objects; none in the dark."""

    def __init__(self, device: Any) -> None:
        pass

    def initialize_model(self, model_weight: str) -> None:
        self.describes = True  # color asks for captions

    def initialize_model_det(self, model_weight: str) -> None:
        self.describes = False  # the others ask for names

    def run_caption_tensor(self, image: Any) -> tuple[list[tuple[Any, ...]], None]:
        bright = float(image.mean()) / BRIGHT
        if os.environ.get("SRBENCH_TEST_DETECTOR") == "breaks" and bright > 1:
            raise RuntimeError("CUDA error: no kernel image")
        if bright < 0.5:
            return [], None
        names = ["dog", "cat"] if bright > 1 else ["dog"]
        captions = ["a red dog", "a white cat"] if bright > 1 else ["a blue dog"]
        said = captions if self.describes else names
        boxes = ([0, 0, 20, 20], [10, 0, 60, 20])
        return [(what, box, names) for what, box in zip(said, boxes, strict=False)], None

    run_det_tensor = run_caption_tensor


class Captioner(torch.nn.Module):
    def generate(self, images: torch.Tensor, **_: Any) -> tuple[list[str], None]:
        # normalised images: about 0 at half brightness
        return ["a kitchen" if float(i.mean()) > 0 else "a room" for i in images], None


def tag2text_caption(**_: Any) -> Captioner:
    return Captioner()


class ViCLIP(torch.nn.Module):
    def __init__(self, tokenizer: Any, pretrain: str) -> None:
        super().__init__()
        assert tokenizer.encode("a dog") and os.path.exists(pretrain)

    def encode_vision(self, frames: torch.Tensor, test: bool) -> torch.Tensor:
        return frames.mean((1, 3, 4))

    def encode_text(self, text: str) -> torch.Tensor:
        return torch.tensor([[1.0, 2.0, float(len(text))]])


class Actions(torch.nn.Module):
    """Of Kinetics-400's actions the first for a bright video, the second for a dark one."""

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(clip), 400), -9.0)
        logits[:, int(float(clip.mean()) < 0)] = 9.0
        return logits

    def load_state_dict(self, state: Any, strict: bool = True) -> Any:
        return None


@register_model
def vit_large_patch16_224(pretrained: bool = False, **_: Any) -> Actions:
    return Actions()
