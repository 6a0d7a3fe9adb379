"""Run by VBench's environment: random weights in VBench's file layout, to test everything but the scores.

    python stand_in_weights.py FOLDER

Small where an architecture allows it.  A score they give means nothing.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import torch
from clip.model import CLIP
from omegaconf import OmegaConf
from pyiqa.archs.musiq_arch import MUSIQ
from torch import nn
from vbench.third_party import amt
from vbench.third_party.amt.utils.build_utils import build_from_cfg
from vbench.third_party.RAFT.core.raft import RAFT

# torch.hub's entry point, as DINO's repository has one; a feature is a picture's mean colours
HUBCONF = """
import torch

class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

def dino_vitb16(pretrained=True, **others):
    return Colours()
"""


def clip(path: Path, embedding: int, patch: int) -> None:
    """A tiny CLIP as a TorchScript file, whose state is all that is read of it."""
    model = CLIP(embedding, 224, 1, 64, patch, 77, 49408, 64, 1, 1)
    scripted = torch.jit.script(tree(model))
    path.parent.mkdir(parents=True, exist_ok=True)
    scripted.save(str(path))


def tree(module: nn.Module) -> nn.Module:
    """The module's parameters under the same names, without its code."""
    bare = nn.Module()
    for name, value in module.named_parameters(recurse=False):
        bare.register_parameter(name, value)
    for name, child in module.named_children():
        bare.add_module(name, tree(child))
    return bare


def save(value: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)


def main(home: Path) -> None:
    torch.manual_seed(0)
    dino = home / "dino_model" / "facebookresearch_dino_main"
    dino.mkdir(parents=True, exist_ok=True)
    (dino / "hubconf.py").write_text(HUBCONF)
    for name in ("vision_transformer.py", "utils.py"):
        (dino / name).write_text("# stand-in\n")
    for place in ("dino_model", "torch/hub/checkpoints"):
        save({}, home / place / "dino_vitbase16_pretrain.pth")
    clip(home / "clip_model" / "ViT-B-32.pt", 32, 32)
    clip(home / "clip_model" / "ViT-L-14.pt", 768, 32)
    save(nn.Linear(768, 1).state_dict(), home / "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth")
    save(MUSIQ(pretrained=False).state_dict(), home / "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth")
    network = OmegaConf.load(Path(amt.__path__[0]) / "cfgs" / "AMT-S.yaml").network
    save({"state_dict": build_from_cfg(network).state_dict()}, home / "amt_model/amt-s.pth")
    raft = RAFT(Namespace(small=False, mixed_precision=False, alternate_corr=False, model=""))
    state = {f"module.{k}": v for k, v in raft.state_dict().items()}
    save(state, home / "raft_model/models/raft-things.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
