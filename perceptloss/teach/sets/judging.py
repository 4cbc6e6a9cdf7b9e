"""Teachers at work: judges that see pictures from farther away, and masking by the reference alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.networks.trunks.critic import references_kept
from perceptloss.registry import create_critic
from perceptloss.teach.degradations.operations import gaussian_blur
from perceptloss.teach.sets.packages import Score, is_package, open_package
from perceptloss.teach.sets.teachers import FLOOR, SIGMA, TeacherSpec

__all__ = ["Panel"]

_BATCH = 8


class Judge:
    """A critic, or a judge of another package, and how far it is from what it sees; see `TeacherSpec`."""

    def __init__(self, spec: TeacherSpec) -> None:
        self.shrink = spec.shrink
        self.critics: list[Critic] = []
        self._score: Score
        if is_package(spec.critic):
            self._score, self.is_higher_better = open_package(spec.critic, spec.pixels_per_degree), True
        else:
            name = spec.critic
            critic = create_critic(name) if spec.weights is None else create_critic(name, weights=spec.weights)
            self.critics.append(critic)
            self._score, self.is_higher_better = critic, critic.card.better == "higher"

    def see(self, image: Tensor) -> Tensor:
        """The picture as it is judged."""
        return F.avg_pool2d(image, self.shrink) if self.shrink > 1 else image

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (N,) of seen versions (N, 3, H, W) of one seen reference (1, 3, H, W), in natural units."""
        return torch.cat([self._score(part, y.expand_as(part)).float() for part in x.split(_BATCH)])

    def texture(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of a seen y (1, 3, H, W) itself, and the distance of y from its blurred self, two scalars."""
        same, blurred = self.score(torch.cat([y, gaussian_blur(y, SIGMA)]), y)
        return same, (same - blurred).abs()


class Panel:
    """The teachers of a plan; what several of them take from one judge is asked once.

    Args:
        specs: The teachers by label.
        crop: Side of the crops, pixels.
    """

    def __init__(self, specs: Mapping[str, TeacherSpec], crop: int) -> None:
        keys = {label: replace(spec, weight=1.0, masked=False) for label, spec in specs.items()}
        judges = {key: Judge(key) for key in dict.fromkeys(keys.values())}
        self.judges = {label: judges[key] for label, key in keys.items()}
        self.is_masked = {label: spec.masked for label, spec in specs.items()}
        self.is_higher_better = {
            label: judge.is_higher_better and not self.is_masked[label] for label, judge in self.judges.items()
        }
        standard = pink(crop)
        with torch.inference_mode():
            self.floors = {
                judge: FLOOR * judge.texture(judge.see(standard))[1]
                for label, judge in self.judges.items()
                if self.is_masked[label]
            }

    @torch.inference_mode()
    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """What all teachers say of versions x (M, 3, S, S) of one crop y (1, 3, S, S), RGB in [0, 1]: (M, T)."""
        judges = dict.fromkeys(self.judges.values())
        natural, masked = {}, {}
        with references_kept([critic for judge in judges for critic in judge.critics]):
            for judge in judges:
                seen = judge.see(y)
                natural[judge] = judge.score(judge.see(x), seen)
                if judge in self.floors:
                    same, texture = judge.texture(seen)
                    loss = same - natural[judge] if judge.is_higher_better else natural[judge] - same
                    masked[judge] = loss / (texture + self.floors[judge]).sqrt()
        columns = [(masked if self.is_masked[label] else natural)[judge] for label, judge in self.judges.items()]
        return torch.stack(columns, dim=1)


def pink(side: int) -> Tensor:
    """A standard texture (1, 3, S, S): grey noise whose amplitude falls with frequency, as that of photographs does."""
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    across = torch.fft.rfftfreq(side, dtype=torch.float64)
    radius = torch.hypot(torch.fft.fftfreq(side, dtype=torch.float64)[:, None], across).clamp(min=1 / side)
    image = torch.fft.irfft2(torch.fft.rfft2(noise) / radius, s=(side, side))
    image = 0.5 + 0.2 * (image - image.mean()) / image.std()
    return image.clamp(0, 1).float().expand(1, 3, -1, -1).contiguous()
