"""CenseoQoE without and with a reference; the outputs of its cases are scores over 5."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from perceptloss.teach.objectives.comparison import gaps, rank_hinge

from ..case import Row, refuse
from ..run import Run, System

_NUMBER = r"(\d+(?:\.\d+)?)"


def _images(run: Run, row: Row) -> tuple[Tensor, ...]:
    return tuple(image for image in run.pair(row.input) if image is not None)


def _maps(run: Run, row: Row, tap: str) -> Tensor:
    images = _images(run, row)
    image = run.critic.pair(*images) if len(images) > 1 else run.critic.prepare(*images)
    return run.critic.trunk(image, (tap,))[tap]


def _gradient_of_reference(run: Run, row: Row) -> Tensor:
    """A critic never sends one to its reference, but the formula has it: of the image whose gradient is listed."""
    (name,) = (r.input for r in run.case.rows if r.quantity == "grad_output")
    y = run.image(row.input)
    return torch.autograd.grad(run.critic.score(run.image(name), y).sum() / 5, y)[0]


def _clips(run: Run) -> list[Tensor]:
    """Clips that the notes describe as tuples of images, (N, T, 3, H, W), and those of their references."""
    described = re.findall(r"\((\w+(?:, \w+)+)\)", run.case.noted(r"'clips' = [^;]*")[0])
    names = [clip.split(", ") for clip in described] or refuse(f"{run.case.system}: its notes describe no clips")
    kinds = (False, True) if run.critic.card.needs_reference else (False,)
    return [torch.stack([torch.cat([run.image(n, pristine=p) for n in clip]) for clip in names]) for p in kinds]


def _listed_loss(run: Run, row: Row, form: str, derivative: str | None) -> Tensor:
    """On the lists of the notes; pairs differ by less than a threshold."""
    notes, (p, y) = run.case.noted, (run.case.listed(name) for name in ("predictions p =", "labels y ="))
    q, y = run.tensor(p, requires_grad=True), run.tensor(y)
    l1, rank, threshold = 1.0, 1.0, float(notes(rf"0 < \|dy\| < {_NUMBER}")[1])
    if form == "l1_rank_weighted":
        facts = notes(rf"l1_rank_weighted: {_NUMBER}\*l1 \+ {_NUMBER}\*rank with margin and threshold {_NUMBER}")
        l1, rank, threshold = map(float, facts.groups())
    with torch.enable_grad():
        apart = gaps(y)
        loss = l1 * (q - y).abs().mean()
        if form != "l1":
            margin = 0.0 if form == "l1_rank" else apart
            loss = loss + rank * rank_hinge(q, y, margin, mask=apart < threshold, over="all")
    return torch.autograd.grad(loss, q)[0] if derivative else loss


_READERS = {
    r"output|output_distorted_equals_reference": lambda run, row: run.score(row.input) / 5,
    "score_5": lambda run, row: run.score(row.input),
    r"(stem|layer[1-4])": _maps,
    "pooled": lambda run, row: _maps(run, row, "layer4").mean((2, 3), keepdim=True),
    "logit": lambda run, row: run.critic.linear(*_images(run, row)),
    "grad_output_wrt_reference": _gradient_of_reference,
    "clip_frame_outputs": lambda run, row: run.critic(*(clip.flatten(0, 1) for clip in _clips(run))) / 5,
    "clip_scores": lambda run, row: run.critic.score_clip(*_clips(run)) / 5,
    "output_if_fed_RGB_by_mistake": lambda run, row: run.critic(*(x.flip(1) for x in _images(run, row))) / 5,
    r"loss_(l1|l1_rank|l1_rank_margin|l1_rank_weighted)(_derivative)?": _listed_loss,
}
SYSTEMS = {f"censeoqoe_{kind}": System(f"censeoqoe-{kind}", _READERS) for kind in ("nr", "fr")}
