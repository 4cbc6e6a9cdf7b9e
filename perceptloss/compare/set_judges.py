"""Judges of whole sets, FID, KID and CMMD: how far the outputs of a system, together, are from the references.

They say nothing of a single image, so that they are no critics and no loss. Features are those of clean-fid's Inception
network (https://github.com/GaParmar/clean-fid, MIT; Parmar et al., CVPR 2022), with its resampling, and of CLIP's
ViT-L/14 at 336 pixels by open_clip (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.compare.jobs import file_jobs
from perceptloss.compare.panel import pick_device
from perceptloss.compare.plan import Plan
from perceptloss.compare.sets import SetScore
from perceptloss.compare.statistics.bootstrap import draws
from perceptloss.compare.statistics.sets import DISTANCES, Array
from perceptloss.errors import ConfigError, PerceptlossError, near
from perceptloss.weights.search import find

__all__ = ["NETWORKS", "parse_set_judges", "set_problems", "set_scores"]

Network = Callable[[Tensor], Array]
"""Images (1, 3, H, W), RGB in [0, 1], to a feature vector (D,)."""
_NETWORK_OF: Final = {"fid": "inception", "kid": "inception", "cmmd": "clip"}
_ROUNDS: Final = (200, 50)  # resamples of small sets, and of more than 300 images


def parse_set_judges(names: str) -> list[str]:
    """Judges of a list such as `fid,kid`.

    Raises:
        ConfigError: listing names that are none, or there twice.
    """
    asked = [name.strip().lower() for name in names.split(",")]
    wrong = [f"no judge of sets is called {name!r}{near(name, DISTANCES)}" for name in asked if name not in DISTANCES]
    wrong += [f"{name} is there twice" for name in dict.fromkeys(asked) if asked.count(name) > 1]
    if wrong:
        raise ConfigError([*wrong, f"there are {', '.join(DISTANCES)}"], "--set-judges")
    return asked


def set_problems(plan: Plan) -> list[str]:
    """What speaks against judging the sets of a plan."""
    problems = [] if plan.images[0].reference else ["sets are compared with that of the references: give --ref"]
    problems += ["sets of stereo pairs are not judged"] if plan.rules.stereo else []
    return problems + (["a set needs two images at least"] if len(plan.images) < 2 else [])


def set_scores(
    plan: Plan, judges: Sequence[str], *, networks: Mapping[str, Callable[[torch.device], Network]] | None = None
) -> list[SetScore]:
    """Distances of the outputs of every system from the references, judge by judge.

    Args:
        plan: What to judge, of two images or more.
        judges: `fid`, `kid`, `cmmd`.
        networks: What makes the network of each name of `NETWORKS`, if not these.

    Raises:
        ConfigError: if the plan has no references, too few images or pairs of views.
        MissingWeights: if a network's file is not here.
        PerceptlossError: if its package is not installed.
    """
    if problems := set_problems(plan):
        raise ConfigError(problems, "the sets")
    device, made = pick_device(plan.settings.device), {**NETWORKS, **(networks or {})}
    needed = list(dict.fromkeys(_NETWORK_OF[judge] for judge in judges))
    built = {name: made[name](device) for name in needed}
    of_systems: dict[tuple[str, int], list[Array]] = {
        (name, s): [] for name in needed for s in range(len(plan.systems))
    }
    of_references: dict[str, list[Array]] = {name: [] for name in needed}
    for job in file_jobs(plan):
        loaded = job.load()
        for name, network in built.items():
            of_systems[name, job.system].append(network(loaded.x[None].to(device)))
            if job.system == 0 and loaded.y is not None:
                of_references[name].append(network(loaded.y[None].to(device)))
    found: list[SetScore] = []
    for judge in judges:
        name = _NETWORK_OF[judge]
        references = np.stack(of_references[name])
        sets = [np.stack(of_systems[name, s]) for s in range(len(plan.systems))]
        found += _judged(judge, plan, sets, references)
    return found


def _judged(judge: str, plan: Plan, sets: list[Array], references: Array) -> list[SetScore]:
    count = len(references)
    distances = [DISTANCES[judge](x, references) for x in sets]
    # an image and its reference are drawn together, and all systems by the same draws
    counts = [c for part in draws(count, _ROUNDS[count > 300], 0) for c in part]
    counts = [c for c in counts if (c > 0).sum() > 1]
    drawn = np.array([[distance(c, c) for c in counts] for distance in distances])
    whole = np.array([distance(np.ones(count), np.ones(count)) for distance in distances])
    base = 0 if plan.baseline is None else plan.systems.index(plan.baseline)
    scores = []
    for s, system in enumerate(plan.systems):
        low, high = _basic(whole[s], drawn[s])
        change: tuple[float | None, float | None, float | None] = None, None, None
        if s != base:
            difference = float(whole[s] - whole[base])
            change = difference, *_basic(difference, drawn[s] - drawn[base])
        scores.append(
            SetScore(judge, system, float(whole[s]), low, high, *change, images=count, features=references.shape[1])
        )
    return scores


def _basic(value: float, drawn: Array) -> tuple[float, float]:
    """The basic bootstrap's interval: resamples hold fewer different images and lie further off than whole sets."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(2 * value - high), float(2 * value - low)


def _inception(device: torch.device) -> Network:
    try:
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import build_resizer
    except ImportError as error:
        raise PerceptlossError('fid and kid are those of clean-fid: pip install "perceptloss[sets]"') from error
    network = InceptionV3W(str(find("fid-inception").parent), download=False).to(device)
    resize = build_resizer("clean")

    @torch.no_grad()
    def features(image: Tensor) -> Array:
        pixels = resize((255 * image[0]).round().permute(1, 2, 0).cpu().numpy())
        return _vector(network(torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)))

    return features


def _clip(device: torch.device) -> Network:
    try:
        import open_clip
    except ImportError as error:
        raise PerceptlossError('CLIP is read by open_clip: pip install "perceptloss[sets]"') from error
    model = (
        open_clip.create_model("ViT-L-14-336-quickgelu", pretrained=str(find("clip-vit-l-14-336"))).to(device).eval()
    )
    mean, std = (
        torch.tensor(v, device=device).view(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std)
    )

    @torch.no_grad()
    def features(image: Tensor) -> Array:
        small = F.interpolate(image, (336, 336), mode="bicubic", antialias=True).clamp(0, 1)
        return _vector(model.encode_image((small - mean) / std))

    return features


def _vector(features: Any) -> Array:
    return np.asarray(features.flatten().double().cpu().numpy(), dtype=np.float64)


NETWORKS: Final[dict[str, Callable[[torch.device], Network]]] = {"inception": _inception, "clip": _clip}
"""What makes the networks, on a device."""
