"""White-box attacks on critics: small changes of a picture that push its score where the picture does not belong.

All are bounded in the largest change of a pixel, `eps`, and keep pictures in [0, 1]; nothing is rounded to 8 bits, so
that they are a little stronger than files can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from perceptloss import Critic
from perceptloss.compare.statistics.measures import srcc
from perceptloss.errors import near
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.exams.rows import Array, Quality, figure_of, floats, shared
from perceptloss.teach.run.critic import quality_of

__all__ = ["ATTACKS", "STRENGTHS", "attack_problems", "attacked", "fgsm", "mi_fgsm", "pgd", "under_attack"]

STRENGTHS: Final = (1, 2, 4, 8)
"""Largest changes of a pixel, in 1/255."""

_LIMIT: Final = 60


def fgsm(quality: Quality, x: Tensor, y: Tensor | None, direction: Tensor, eps: float) -> Tensor:
    """One step of `eps` along the sign of the gradient.

    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.

    Args:
        quality: Images and references to qualities.
        x: Images, (N, C, H, W), in [0, 1].
        y: References, same shape, or None.
        direction: 1 where the quality is to rise, -1 where it is to fall, (N,).
        eps: Largest change of a pixel.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1].
    """
    return (x + eps * _gradient(quality, x, y, direction).sign()).clamp(0, 1)


def pgd(
    quality: Quality,
    x: Tensor,
    y: Tensor | None,
    direction: Tensor,
    eps: float | Tensor,
    steps: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Steps of `2.5 eps / steps` along the sign of the gradient, each brought back to within `eps`.

    Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018.

    Args:
        quality: As in `fgsm`.
        x: As in `fgsm`.
        y: As in `fgsm`.
        direction: As in `fgsm`.
        eps: As in `fgsm`, or of each image, (N, 1, 1, 1).
        steps: Gradients.
        generator: Draws the start within `eps`, as the paper does; without it the start is the image.
    """
    attacked = x
    if generator is not None:
        noise = torch.rand(x.shape, generator=generator).to(x) * 2 - 1
        attacked = (x + eps * noise).clamp(0, 1)
    for _ in range(steps):
        attacked = attacked + 2.5 * eps / steps * _gradient(quality, attacked, y, direction).sign()
        attacked = _within(attacked, x, eps)
    return attacked


def mi_fgsm(
    quality: Quality,
    x: Tensor,
    y: Tensor | None,
    direction: Tensor,
    eps: float,
    steps: int = 10,
    decay: float = 1.0,
) -> Tensor:
    """Steps of `eps / steps` along the sign of a running sum of gradients, each of them of mean magnitude 1.

    Dong, Liao, Pang, Su, Zhu, Hu, Li, "Boosting adversarial attacks with momentum", CVPR 2018.

    Args:
        quality: As in `fgsm`.
        x: As in `fgsm`.
        y: As in `fgsm`.
        direction: As in `fgsm`.
        eps: As in `fgsm`.
        steps: Gradients.
        decay: Of the sum.
    """
    attacked, momentum = x, torch.zeros_like(x)
    for _ in range(steps):
        gradient = _gradient(quality, attacked, y, direction)
        size = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        momentum = decay * momentum + gradient / size
        attacked = _within(attacked + eps / steps * momentum.sign(), x, eps)
    return attacked


def _gradient(quality: Quality, x: Tensor, y: Tensor | None, direction: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad((direction * quality(x, y)).sum(), x)[0]


def _within(attacked: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    return torch.minimum(torch.maximum(attacked, x - eps), x + eps).clamp(0, 1)


Attack = Callable[..., Tensor]
ATTACKS: Final[dict[str, Attack]] = {"FGSM": fgsm, "PGD-10": pgd, "MI-FGSM": mi_fgsm}


def under_attack(
    accelerator: Accelerator, critic: Critic, exam: Exam, *, limit: int, seed: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """SRCC on an exam of which every picture is attacked so as to spoil the order.

    Pictures whose target is the median or above are pushed down, the others up.

    Args:
        accelerator: Of the run.
        critic: Frozen.
        exam: With targets.
        limit: Most images, drawn from all photographs; 0: all.
        seed: Of the images, and of the starts of PGD.
        rounds: Of the bootstrap over photographs; 0: no intervals.

    Returns:
        Attack to strength, in 1/255 (`0`: before), to a figure.
    """
    rows = _drawn(exam, limit, seed)
    target, content, middle = exam.target[rows], exam.content[rows], np.median(exam.target[rows])
    quality = partial(quality_of, critic)
    parts = [rows[i : i + exam.batch] for i in range(0, len(rows), exam.batch)]

    def figure(attack: Attack | None, strength: int) -> dict[str, Any]:
        def judged(number: int, part: Array) -> list[float]:
            x, y = (floats(accelerator, image) for image in exam.images(part))
            assert x is not None
            if attack is not None:
                direction = torch.from_numpy(np.where(exam.target[part] >= middle, -1.0, 1.0)).to(x)
                x = attack(quality, x, y, direction, strength / 255, **_draws(attack, seed, number))
            with torch.no_grad():
                return quality(x, y).double().tolist()

        return figure_of(srcc, shared(accelerator, parts, judged), target, content, rounds)

    before = figure(None, 0)
    return {name: {"0": before, **{str(k): figure(attack, k) for k in STRENGTHS}} for name, attack in ATTACKS.items()}


def _drawn(exam: Exam, limit: int, seed: int) -> Array:
    """Rows with targets, one by one: whole photographs would be too few for an interval."""
    rows = np.flatnonzero(np.isfinite(exam.target))
    return np.sort(np.random.default_rng([seed, 19]).permutation(rows)[: limit or len(rows)])


def _draws(attack: Attack, seed: int, number: int) -> dict[str, Any]:
    return {"generator": torch.Generator().manual_seed(seed * 100_003 + number)} if attack is pgd else {}


def attack_problems(given: Mapping[str, Any], exams: Sequence[Exam]) -> list[str]:
    """What is wrong with `val.attacks`; empty if there are none."""
    if not given:
        return []
    with_targets = [exam.name for exam in exams if exam.has_targets]
    name, limit = given.get("exam"), given.get("limit", _LIMIT)
    problems = [
        f"val.attacks: unknown key {key!r}; known: exam, limit" for key in given if key not in ("exam", "limit")
    ]
    if name not in with_targets:
        known = ", ".join(with_targets) or "there is none"
        hint = near(str(name), with_targets)
        problems.append(f"val.attacks.exam: expected an exam with targets ({known}), got {name!r}{hint}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        problems.append(f"val.attacks.limit: expected a whole number of images, 0 for all, got {limit!r}")
    return problems


def attacked(
    accelerator: Accelerator,
    critics: Mapping[str, Critic],
    exams: Sequence[Exam],
    given: Mapping[str, Any],
    rounds: int,
) -> dict[str, Any] | None:
    """What `val.attacks` asks for: exam, images and, by critic, attack and strength, figures; None if nothing."""
    if not given:
        return None
    exam = next(exam for exam in exams if exam.name == given["exam"])
    limit = given.get("limit", _LIMIT)
    found = {
        name: under_attack(accelerator, critic, exam, limit=limit, seed=0, rounds=rounds)
        for name, critic in critics.items()
    }
    return {"exam": exam.name, "images": len(_drawn(exam, limit, 0)), "figures": found}
