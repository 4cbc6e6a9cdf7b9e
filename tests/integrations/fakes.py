"""Critics with faults, and small BasicSR models, for the tests of the integrations."""

from __future__ import annotations

import logging
from typing import Any

import torch

from perceptloss import registry
from perceptloss.card import Card
from perceptloss.critic import Critic, Entry


def _card(name: str, **facts: Any) -> Card:
    facts = {"kind": "fr", "better": "lower", "bounds": (0.0, 1.0), "identity": 0.0, "shape": "distance"} | facts
    return Card(name=name, summary="For tests.", licence_code="Apache-2.0", paper="none", source="none", **facts)


class Brightness(Critic):
    """Squared difference of mean brightness; nan as soon as an image is brighter than `limit`."""

    limit = float("inf")

    def score(self, x, y=None):
        brightness = x.mean((1, 2, 3))
        return (brightness - y.mean((1, 2, 3))).square() * torch.where(brightness > self.limit, float("nan"), 1.0)


class Deaf(Critic):
    """Sends no gradient."""

    def score(self, x, y=None):
        return (x.detach() - y).abs().mean((1, 2, 3)) + 0 * x.mean((1, 2, 3))


class Alone(Critic):
    """Mean of an image, without reference; higher is better."""

    def score(self, x, y=None):
        return x.mean((1, 2, 3))


def registered(monkeypatch: Any) -> None:
    """Put the fakes into the registry for one test."""
    for kind, card in (
        (Brightness, _card("fake-brightness")),
        (Deaf, _card("fake-deaf")),
        (Alone, _card("fake-alone", kind="nr", better="higher", identity=None, shape="deficit")),
        (Brightness, _card("fake-large", min_size=161)),
        (Brightness, _card("fake-even", multiple_of=8)),
        (Brightness, _card("fake-stereo", kind="stereo-fr")),
    ):
        monkeypatch.setitem(registry._registered, card.name, Entry(card, kind))


def options(model: str = "SRModel", **train: Any) -> dict[str, Any]:
    """BasicSR options of a tiny x2 model, as its parser would hand them over."""
    opt: dict[str, Any] = {"model_type": model, "is_train": True, "num_gpu": 0, "scale": 2, "path": {}}
    opt |= {"dist": False, "rank": 0, "world_size": 1, "datasets": {"train": {"gt_size": 32}}}
    opt["network_g"] = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "upscale": 2} | {
        "num_feat": 8,
        "num_block": 1,
    }
    adam = {"type": "Adam", "lr": 1e-3}
    opt["train"] = {
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        "optim_g": dict(adam),
        "scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.5},
        **train,
    }
    if "GAN" in model:
        opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
        opt["train"]["optim_d"] = dict(adam)
        opt["train"]["gan_opt"] = {
            "type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 5e-3
        }  # fmt: skip
    return opt


def batch(seed: int = 0, size: int = 32, samples: int = 2) -> dict[str, torch.Tensor]:
    """Images for a tiny x2 model."""
    from images import pair

    _, gt = pair(samples, size, seed=seed)
    return {"lq": torch.nn.functional.avg_pool2d(gt, 2), "gt": gt}


class Records(logging.Handler):
    """Messages of BasicSR's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
