"""The doctor: one critic on its bench, attacked and asked what it pays for, on a few photographs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.honesty.examination import Examination
from perceptloss.honesty.ladders import degraded
from perceptloss.honesty.probes import attacked, dead_zones, flat_patches, grain, ladders, patterns, pixelation, scale
from perceptloss.honesty.spectrum import peaks, phases
from perceptloss.honesty.subject import EFFORTS, EffortName, subject_of

__all__ = ["examine"]

_SMOOTH = 2.0  # deviation of the blur whose gradient is looked at, pixels


def examine(
    critic: Critic,
    photos: Mapping[str, Tensor],
    effort: EffortName = "standard",
    *,
    device: torch.device | None = None,
    progress: Callable[[str], object] = lambda step: None,
) -> Examination:
    """Examine a critic: attacks, patterns, spectra, flat and dead places, and its sense of direction.

    What is examined is what a loss of the card's shape reads, turned so that higher is better. Gains are in units: what
    lies between photographs and their worst degraded versions, in the critic's own score. Integral robustness follows
    the idea of Antsiferova et al., "Comparing the robustness of modern no-reference image- and video-quality metrics to
    adversarial attacks", AAAI 2024, with gains relative to that range.

    Args:
        critic: Frozen; its kind says what it sees. A stereo critic sees two views of one photograph, 4 pixels apart.
        photos: Name to photograph, (1, 3, H, W), in [0, 1].
        effort: `quick` (2 photographs of 96 pixels, two attacks, two strengths), `standard` (3 of 128) or `full` (8 of
            192); sides are larger where the card asks for it.
        device: Where; that of the critic unless given. The critic is moved there.
        progress: Told before each part, by its name.

    Returns:
        The figures; `findings_of` says what they mean.

    Raises:
        InputError: if photographs are too small.
    """
    began = time.perf_counter()
    tensors = (*critic.parameters(), *critic.buffers())
    device = device or next((tensor.device for tensor in tensors), torch.device("cpu"))
    chosen = EFFORTS[effort]
    progress("photographs")
    subject = subject_of(critic.to(device), photos, chosen, device)
    starts = {"truth": subject.y, "restored": subject.restored}
    progress("attacks")
    attacks = {name: attacked(subject, x, chosen) for name, x in starts.items()}
    progress("patterns")
    fixed = {name: patterns(subject, x) for name, x in starts.items()}
    random = {name: grain(subject, x) for name, x in starts.items()}
    progress("gradients")
    push = subject.gradient(degraded("blur", subject.y, _SMOOTH))
    flat, zones = flat_patches(subject), dead_zones(subject)
    progress("direction")
    return Examination(
        critic=critic.card.name,
        signature=critic.signature,
        kind=critic.card.kind,
        effort=effort,
        photos=tuple(photos)[: len(subject.y)],
        side=subject.y.shape[-2],
        device=str(device),
        unit=subject.unit,
        attacks=attacks,
        patterns=fixed,
        grain=random,
        peaks=peaks(push),
        phases=phases(push),
        flat=flat,
        zones=zones,
        ladders=ladders(subject),
        pixelation=pixelation(subject),
        scale=scale(subject),
        seconds=time.perf_counter() - began,
    )
