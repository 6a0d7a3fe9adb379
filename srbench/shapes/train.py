"""`python -m srbench.shapes.train STAGE`: make the shapes family, stage by stage.

Stages, in order: text, vae, latents, denoisers, export.  Each goes on where it
stopped.  For two processes: `torchrun --nproc-per-node 2 -m srbench.shapes.train …`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from srbench.errors import Parser


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m srbench.shapes.train", description=__doc__)
    parser.add_argument("stage", choices=["text", "vae", "latents", "denoisers", "export"])
    parser.add_argument("--out", type=Path, default=Path("results/shapes-training"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=16, help="clips a process and step (denoisers)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.stage == "latents":
        from srbench.shapes import train_denoisers

        train_denoisers.encode_pool(args.out, 4000, args.seed, things=1)
        train_denoisers.encode_pool(args.out, 14000, args.seed, things=2)
    elif args.stage == "denoisers":
        from srbench.shapes import train_denoisers

        train_denoisers.train(args.out, args.steps or 5650, args.seed, args.batch)
    elif args.stage == "export":
        from srbench.shapes import export

        export.export(args.out)
    elif args.stage == "text":
        from srbench.shapes import train_text

        train_text.train(args.out, args.steps or 1500, args.seed)
    elif args.stage == "vae":
        from srbench.shapes import train_vae

        train_vae.train(args.out, args.steps or 4500, args.seed)


if __name__ == "__main__":
    main()
