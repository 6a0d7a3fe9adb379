"""Run by VBench's own environment, where there is no srbench: scores one dimension of one folder.

    python worker.py JOB.json        or        python worker.py --check

JOB.json: dimension, device, videos (a folder), info (a full_info JSON), out (a folder), mode,
prompts ({file name: prompt}, for mode custom_input).  VBench writes OUT/NAME_eval_results.json;
this writes OUT/worker.json beside it: the ground the scores stand on, and the errors of
detectors that VBench swallows.  With the mode static_filter no dimension is scored: prompts is
then {prompt: [file names]}, and OUT/worker.json has VBench's verdict on each file, `static`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

NAME = "srbench"  # of VBench's result files
DETECTING = ("object_class", "multiple_objects", "color", "spatial_relationship")
PACKAGES = ("vbench", "torch", "torchvision", "decord", "numpy", "transformers", "pyiqa")


def ground(device: str) -> dict[str, str]:
    """Versions and device, as text; what scores may move with."""
    import torch

    found: dict[str, str] = {}
    for name in PACKAGES:
        found |= _version(name)
    found["torch"] = str(torch.__version__)  # with its build, as 2.5.1+cu124
    found["python"] = platform.python_version()
    cuda = torch.device(device).type == "cuda"
    found["device"] = torch.cuda.get_device_name(torch.device(device)) if cuda else device
    return found


def _version(name: str) -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name)}
    except importlib.metadata.PackageNotFoundError:
        return {name: "absent"}


def watch_detector() -> list[str]:
    """Errors inside the detector from now on: VBench's object_class takes them for `nothing found`."""
    from vbench.third_party.grit_model import DenseCaptioning

    errors: list[str] = []

    def watched(name: str) -> None:
        inner = getattr(DenseCaptioning, name)

        def call(self: Any, image: Any) -> Any:
            try:
                return inner(self, image)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
                raise

        setattr(DenseCaptioning, name, call)

    for name in ("run_caption_tensor", "run_det_tensor"):
        watched(name)
    return errors


def refuse_partial_checkpoint() -> None:
    """From now on a checkpoint that leaves some of GRiT's parameters as they were drawn is an error.

    detectron2 only warns of it, and the detector then finds nothing or anything, which VBench scores.
    """
    from detectron2.checkpoint import DetectionCheckpointer

    load = DetectionCheckpointer._load_model

    def whole(self: Any, checkpoint: Any) -> Any:
        found = load(self, checkpoint)
        own = dict(self.model.named_parameters(remove_duplicate=False))
        # VBench's second text decoder shares the first one's parameters under names of its own
        loaded = {id(p) for name, p in own.items() if name not in found.missing_keys}
        random = [name for name, p in own.items() if id(p) not in loaded]
        if random:
            raise ValueError(
                f"the checkpoint has {len(random)} of GRiT's parameters not, or in another shape: {random[0]}"
            )
        return found

    DetectionCheckpointer._load_model = whole


def found_no_color(error: BaseException) -> bool:
    """Whether VBench divided by the number of videos in which it found the object: 0 of those given."""
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    return last is not None and last.tb_frame.f_globals.get("__name__") == "vbench.color"


def score(job: dict[str, Any]) -> None:
    """Drive VBench's class as its command cannot be driven: on any device, one rank, no gradients."""
    import torch
    from vbench import VBench

    torch.set_num_threads(int(job.get("threads", 1)))
    detects = job["dimension"] in DETECTING
    errors = watch_detector() if detects else []
    if detects:
        refuse_partial_checkpoint()
    # torch.device, not a string: a string takes other branches (motion_smoothness, GRiT)
    bench = VBench(torch.device(job["device"]), job["info"], job["out"])
    try:
        with torch.set_grad_enabled(False):
            bench.evaluate(
                videos_path=job["videos"],
                name=NAME,
                dimension_list=[job["dimension"]],
                local=True,
                mode=job["mode"],
                prompt_list=job["prompts"],
                imaging_quality_preprocessing_mode="longer",
            )
    except ZeroDivisionError as error:
        if not found_no_color(error):
            raise
        Path(job["out"], f"{NAME}_eval_results.json").write_text(json.dumps({"color": [None, []]}), "utf-8")
    own = ground(job["device"]) | (_version("detectron2") if detects else {})
    told = {"ground": own, "swallowed": errors[:3], "swallowed_count": len(errors)}
    Path(job["out"], "worker.json").write_text(json.dumps(told), "utf-8")


def keep_static(job: dict[str, Any]) -> None:
    """VBench's static filter: of each prompt's files, in order, the first `most` that it calls static.

    As in its command, files after those are not looked at; and as that command is written for
    CUDA alone, its device and the place its weights are loaded to are set here.
    """
    import torch
    from vbench.cli import static_filter
    from vbench.utils import CACHE_DIR

    torch.set_num_threads(int(job.get("threads", 1)))
    device = torch.device(job["device"])
    static_filter.DEVICE = device
    load = torch.load
    torch.load = lambda *args, **more: load(*args, **{"map_location": device, **more})
    settings = Namespace(
        model=f"{CACHE_DIR}/raft_model/models/raft-things.pth",
        small=False,
        mixed_precision=False,
        alternate_corr=False,
    )
    judge = static_filter.StaticFilter(settings, device=device)
    verdicts: dict[str, bool] = {}
    for names in job["prompts"].values():
        kept = 0
        for name in names:
            if kept < job["most"]:
                verdicts[name] = bool(judge.infer(str(Path(job["videos"], name))))
                kept += verdicts[name]
    told = {"ground": ground(job["device"]), "static": verdicts, "swallowed": [], "swallowed_count": 0}
    Path(job["out"], "worker.json").write_text(json.dumps(told), "utf-8")


def check() -> dict[str, str]:
    """What the environment has; raises where VBench or its decoders cannot be imported."""
    import cv2  # noqa: F401
    import decord  # noqa: F401
    import vbench.temporal_flickering  # noqa: F401

    return ground("cpu") | _version("detectron2")


def main(arguments: list[str]) -> int:
    """0; whatever goes wrong keeps its traceback, which the caller logs."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments == ["--check"]:
        print(json.dumps(check()))
    elif arguments[0] == "--ground":
        print(json.dumps(ground(arguments[1]) | _version("detectron2")))
    else:
        job = json.loads(Path(arguments[0]).read_text("utf-8"))
        (keep_static if job["mode"] == "static_filter" else score)(job)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
