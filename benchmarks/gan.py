"""BasicSR's GAN training of the network of `recipes/sr.py`: same start, same patches, as long as another took.

    python benchmarks/gan.py OUTPUT --val FOLDER [--train FOLDER] --seconds S [--seed N]

`SRGANModel` with L1 and its vanilla GAN loss against `UNetDiscriminatorSN`, in the proportion of Real-ESRGAN (1 : 0.1);
without its VGG loss, whose weights have to be downloaded. Seconds are those of the processor, with a GPU of the clock.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "recipes")]

import sr  # noqa: E402 - a recipe is no module of a package
from _lib.data import PatchPairs, SampleOrder, patch_loader, whole_pair  # noqa: E402
from _lib.networks import export, load_weights, restore  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from perceptloss.runs.images import bundled, find_pairs  # noqa: E402
from perceptloss.runs.launch import use_threads  # noqa: E402
from perceptloss.runs.state import Ema  # noqa: E402
from perceptloss.weights.search import find  # noqa: E402

_WIDTH: Final = 24
"""Channels of the discriminator, as many as our `patch` has."""


def options(config: sr.Config) -> dict[str, Any]:
    """What BasicSR calls a configuration."""
    adam = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
    return {
        "name": "gan",
        "model_type": "SRGANModel",
        "num_gpu": int(torch.cuda.is_available()),
        "dist": False,
        "is_train": True,
        "scale": config.model.scale,
        "network_g": {"type": "SRVGGNetCompact", **config.model.options, "act_type": "prelu"},
        "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": _WIDTH},
        "path": {},
        "train": {
            "ema_decay": 0,
            "optim_g": dict(adam),  # BasicSR takes the type out of each
            "optim_d": dict(adam),
            "scheduler": {"type": "MultiStepLR", "milestones": [10**9], "gamma": 1.0},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
            "net_d_iters": 1,
            "net_d_init_iters": 0,
        },
    }


def train(config: sr.Config, home: Path, train_on: Path | None, val: Path, seconds: float) -> int:
    """Train, restore the photographs, and return how many steps the time was enough for."""
    import_module("perceptloss.integrations.basicsr")  # makes BasicSR importable; sorted imports would put it second
    from basicsr.models import build_model

    accelerator = Accelerator()
    use_threads(config.threads, accelerator)
    torch.manual_seed(config.train.seed)
    model = build_model(options(config))
    load_weights(model.net_g, find("sr-start"))
    pairs = find_pairs([str(train_on)], [], config.model.scale, "train") if train_on else bundled(sr.TRAIN_PHOTOS)
    patches = PatchPairs(pairs, config.data.patch, config.model.scale, seed=config.train.seed, cache_mb=512)
    order = SampleOrder(len(pairs), 0, 10**6, config.train.seed)
    ema, clock, step = Ema(model.net_g.parameters(), config.train.ema), _clock(), 0
    end = clock() + seconds
    for lq, gt in patch_loader(patches, order, config.data.batch, 0, config.train.seed):
        model.feed_data({"lq": lq, "gt": gt})
        step += 1
        model.optimize_parameters(step)
        ema.update(step)
        if clock() >= end:
            break
    export(accelerator, model.net_g, ema, config.model, home / "models" / "net_g", {"step": step})
    with ema.swapped_in(), torch.no_grad():
        for pair in find_pairs([str(val)], [], config.model.scale, "val"):
            lq, gt = whole_pair(pair, config.model.scale)
            restored = restore(model.net_g, lq.to(model.device), config.model.scale).clamp(0, 1)
            _write(restored, home / "images" / "critics" / f"{pair.gt.stem}.png")
            _write(gt, home / "images" / "ground-truth" / f"{pair.gt.stem}.png")
    return step


def _clock() -> Callable[[], float]:
    return time.perf_counter if torch.cuda.is_available() else time.process_time


def _write(image: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(path)


def main() -> None:
    """The whole run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--train", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = sr.Config()
    config = replace(config, train=replace(config.train, seed=given.seed))
    step = train(config, given.output, given.train, given.val, given.seconds)
    (given.output / "steps.json").write_text(f'{{"steps": {step}}}\n')


if __name__ == "__main__":
    main()
