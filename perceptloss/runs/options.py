"""What recipes' configurations share: the options at their top, and the sections of those with a restorer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from perceptloss.runs.config import option

__all__ = ["Data", "Learning", "Log", "Loss", "Model", "RunOptions", "Train", "Val"]


@dataclass(frozen=True)
class RunOptions:
    """What every recipe's configuration begins with."""

    output: str = option("runs", "folder of the run")
    resume: str = option(
        "auto", "auto: go on where this folder stopped; none: refuse to; PATH: start from that checkpoint"
    )
    overwrite: bool = option(False, "delete an earlier run in the folder")
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(
        None, "of the network; nothing: as accelerate launch says"
    )
    threads: int = option(
        1, "CPU threads per process; 0: all cores, shared out. Threads on busy cores wait for each other", at_least=0
    )


@dataclass(frozen=True)
class Data:
    """Images, read recursively from folders."""

    train: tuple[str, ...] = option(
        (), "folders of ground-truth images to train on; none: photographs installed with scikit-image"
    )
    train_lq: tuple[str, ...] = option(
        (), "folders of low-quality images, paired by stem; none: made by antialiased bicubic shrinking"
    )
    val: tuple[str, ...] = option(
        (), "folders of ground-truth images to validate on; none: held-out photographs of scikit-image"
    )
    val_lq: tuple[str, ...] = option(
        (), "folders of low-quality validation images; none: made by antialiased bicubic shrinking"
    )
    patch: int = option(128, "side of the ground-truth patches, pixels; a multiple of model.scale", at_least=8)
    batch: int = option(
        8, "patches per process and forward; a step sees batch x train.accumulate x processes", at_least=1
    )
    flips: bool = option(True, "mirror and turn the patches at random")
    workers: int = option(0, "processes that read images, per training process", at_least=0)
    cache_mb: int = option(
        512, "memory for decoded images per reading process, MiB; 0 decodes again every time", at_least=0
    )
    check: bool = option(True, "decode every image once at the start and list all that are damaged")


@dataclass(frozen=True)
class Model:
    """The restorer, by the name of its class: one of ours, or any network of BasicSR or spandrel."""

    arch: str = option(
        "Compact",
        "AffineUNet, Compact, NU2Net, RFDN, SGUIENet of ours, a name in BasicSR's registry, or a class of spandrel",
    )
    options: dict[str, Any] = option({}, "arguments of the network")  # noqa: RUF009
    scale: int = option(4, "output pixels per input pixel; checked against the network", at_least=1)
    multiple_of: int = option(
        1, "whole images are padded by reflection to this multiple (windows of SwinIR, HAT: 8, 16)", at_least=1
    )
    frozen: tuple[str, ...] = option((), "beginnings of the names of parameters that stay as they start")
    lora: int = option(
        0, "rank of additions to the weights that learn in their place; 0: all weights learn", at_least=0
    )
    weights: str | None = option(
        None, "to start from: .safetensors, .pth of BasicSR (params_ema, else params), a shipped name, auto: what fits"
    )


@dataclass(frozen=True)
class Loss:
    """pixel_weight x L1 + sum of weighted critics."""

    pixel_weight: float = option(1.0, "weight of the L1 distance", at_least=0)
    critics: dict[str, Any] | list[Any] = option(  # noqa: RUF009
        {}, "terms, as in CriticLoss: {ms-gmsd: 1.0, ssim: {weight: 0.5, start: 100}}"
    )
    grad: Literal["fused", "checkpoint", "autograd"] = option(
        "fused", "how the critics' gradient is obtained; fused needs least memory"
    )
    micro_batch: int | Literal["auto"] = option(
        "auto", "images the critics see at once with grad=fused; fewer need less memory; auto: about 2^17 pixels"
    )
    shift: int = option(
        0, "lines and columns that no critic sees, a random number of them at the top and at the left", at_least=0
    )
    tile: int | None = option(None, "longest side that critics are given at once, for patches of 4K; see CriticLoss")
    artefacts: float = option(
        0.0, "weight of LDL's loss of artefacts, seen beside what the averaged weights restore (train.ema)", at_least=0
    )
    anchors: list[Any] = option(  # noqa: RUF009
        [],
        "labelled images for joint critics to learn from too: opinions or teachers, as in `data` of critic.py",
    )
    budget: dict[str, Any] = option(  # noqa: RUF009
        {}, "what critics may cost, on strips that are not trained on: {psnr: -0.5}, or at worst: {psnr: {worst: 28}}"
    )
    budget_every: int = option(25, "steps between two measurements of what is spent", at_least=1)
    budget_most: float = option(1.0, "greatest factor of the critics' weights while the budget is not spent", above=0)
    budget_room: float = option(
        1.0, "how many times it may be spent on the way, as the end goes back towards the start", at_least=1
    )
    on_nonfinite: Literal["skip", "raise"] = option("skip", "what to do with a critic or a step that is not finite")
    domain: Literal["natural", "underwater", "night", "screen"] = option(
        "natural", "what the images are: critics that were made for others warn once"
    )


@dataclass(frozen=True)
class Learning:
    """Whether critics learn beside the restorer."""

    joint: bool | None = option(
        None,
        "true: all critics that can learn do; false: none, and joint ones of random weights go; nothing: as terms say",
    )


@dataclass(frozen=True)
class Train:
    """Optimisation."""

    steps: int = option(100_000, "optimizer steps", at_least=1)
    accumulate: int = option(1, "forwards per step", at_least=1)
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "muon: steps of matrices are made orthogonal; adamw for the rest"
    )
    lr: float = option(2e-4, "learning rate after warm-up", above=0)
    lr_end: float = option(1e-6, "learning rate at the end of the cosine", at_least=0)
    warmup: int = option(500, "steps of linear warm-up", at_least=0)
    betas: tuple[float, float] = option((0.9, 0.99), "of AdamW", at_least=0, below=1)
    weight_decay: float = option(0.0, "of the optimizer, decoupled", at_least=0)
    clip: float = option(1.0, "largest norm of the gradient; 0: no clipping", at_least=0)
    ema: float = option(
        0.999, "decay of the weight average that is validated and delivered; 0: none", at_least=0, below=1
    )
    seed: int = option(0, "of initial weights, sample order, patches and flips", at_least=0)


@dataclass(frozen=True)
class Val:
    """Validation on whole images, also at the end."""

    every: int = option(1000, "steps between validations; 0: only at the end", at_least=0)
    judges: tuple[str, ...] = option((), "critics that only watch; none of them may be trained on")
    guests: tuple[str, ...] = option((), "judges that are asked too if their weights are here; if not, they are named")
    best: str = option("psnr-y", "metric that decides which weights are kept as models/best*")
    reaction: Literal["warn", "stop", "freeze", "anneal"] = option(
        "warn", "to alarms: say so, stop, give the critics no more weight, or less and less"
    )
    border: int | None = option(None, "pixels cut off each side before scoring; nothing: model.scale", at_least=0)


@dataclass(frozen=True)
class Log:
    """What is written while training, besides log.jsonl."""

    every: int = option(50, "steps between lines of log.jsonl and of the trackers", at_least=1)
    checkpoint_every: int = option(1000, "steps between checkpoints; one is always written at the end", at_least=1)
    keep: int = option(3, "newest checkpoints that stay; a damaged one needs the one before", at_least=2)
    trackers: tuple[str, ...] = option((), "trackers of Accelerate: tensorboard, wandb, ...")
