"""Run by VBench's environment, with detectron2 in it: a GRiT of random weights that finds things.

    python stand_in_grit.py FOLDER

Every weight has GRiT's own shape and is random but for those that decide: on a bright frame the
network finds three boxes, all of it and its left and its right half, each a `dog` by name and a
`red dog` by caption; on a dark one, nothing.  A score it gives means nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from vbench.third_party.grit_src.image_dense_captions import get_parser, setup_cfg

WIDTH, HEIGHT = 128, 64  # of a frame; GRiT's level p6, of stride 64, then has two places side by side
DARK, BRIGHT = 30, 220
WORDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, "dog": 2000, "red": 2001}
CAPTION = 104  # the token that GRiT's captions begin with; its names begin with [CLS]
STRIDES = (8, 16, 32, 64, 128)  # of its levels p3 to p7
HALVES = 3  # the level, p6, whose boxes are halves


def vocabulary(home: Path) -> None:
    """BERT's tokenizer with its number of words, most of them of no meaning."""
    names = {i: word for word, i in WORDS.items()}
    folder = home / "bert-base-uncased"
    folder.mkdir(parents=True, exist_ok=True)
    words = (names.get(i, f"[unused{i}]") for i in range(30522))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "config.json").write_text('{"model_type": "bert"}')


def find_boxes(head: torch.nn.Module) -> None:
    """Boxes of one size around each place: half the frame on one level, else far larger than it."""
    torch.nn.init.zeros_(head.bbox_pred.weight)
    torch.nn.init.ones_(head.bbox_pred.bias)  # times stride and scale: pixels from the place to each side
    for level, (scale, stride) in enumerate(zip(head.scales, STRIDES, strict=True)):
        scale.scale.fill_(0.45 if level == HALVES else 2048 / stride)


def find_in_the_bright(model: torch.nn.Module) -> None:
    """An objectness of about 20 for all places of a bright frame, and of -20 for those of a dark one.

    What the random network makes of the two is taken as it is; that one layer is fitted to it.
    """
    head = model.proposal_generator.centernet_head
    pixels = torch.tensor([DARK, BRIGHT]).view(2, 1, 1, 1).expand(2, 3, HEIGHT, WIDTH).float()
    levels = model.backbone((pixels - model.pixel_mean) / model.pixel_std)
    seen = [head.bbox_tower(levels[name]).flatten(2) for name in model.proposal_generator.in_features]
    dark, bright = torch.cat(seen, 2).transpose(1, 2)  # (places, channels)
    every = torch.nn.functional.pad(torch.cat([dark, bright]), (0, 1), value=1.0).double()
    wanted = torch.tensor([-20.0, 20.0]).repeat_interleave(len(dark)).double()
    fitted = torch.linalg.lstsq(every, wanted, driver="gelsd").solution
    torch.nn.init.zeros_(head.agn_hm.weight)
    head.agn_hm.weight[0, :, 1, 1] = fitted[:-1]
    head.agn_hm.bias.fill_(float(fitted[-1]))


def call_it_a_dog(model: torch.nn.Module) -> None:
    """The text decoder's next word hangs on the last one alone: begin (red) dog end."""
    decoder = model.roi_heads.text_decoder.textual
    for name, parameter in decoder.transformer.named_parameters():
        if "LayerNorm" not in name:
            parameter.zero_()  # what is left adds nothing to the word's own embedding
    words = decoder.embedding.words.weight  # of the output too
    decoder.embedding.positions.weight.zero_()
    words[WORDS["red"]] = words[CAPTION] * 10  # likely after what begins a caption
    decoder.output.bias.zero_()
    decoder.output.bias[WORDS["dog"]] = 20.0
    decoder.output.bias[WORDS["[SEP]"]] = 10.0  # no word comes twice in a row


def main(home: Path) -> None:
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    from detectron2.modeling import build_model

    vocabulary(home)
    model = build_model(setup_cfg(get_parser(torch.device("cpu")))).eval()
    find_boxes(model.proposal_generator.centernet_head)
    find_in_the_bright(model)
    for stage in model.roi_heads.box_predictor:
        stage.cls_score.bias.copy_(torch.tensor([20.0, 0.0]))  # something, not nothing
    call_it_a_dog(model)
    path = home / "grit_model" / "grit_b_densecap_objectdet.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
