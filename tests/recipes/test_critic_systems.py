"""The losses of published systems by their names in the configuration: a few steps teach the system's own critic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.utils import set_seed
from critic_helpers import CRITIC
from small import SMALL, build_small
from torch import Tensor

from perceptloss import Critic, create_critic
from perceptloss.errors import ConfigError
from perceptloss.teach.run.critic import Reader, settle
from perceptloss.teach.run.sources import Batch, SourceOptions
from perceptloss.teach.run.systems import SYSTEMS
from perceptloss.teach.run.terms import Terms, ask_references, looks_of

COUNT = 6


class Rows:
    """A source that knows everything."""

    kinds = ("clean", "damage")
    gives = frozenset({"target", "levels", "clean", "kinds", "references"})

    def __init__(self, **changed: Any) -> None:
        self.options = SourceOptions(name="rows", **changed)


def photographs(side: int) -> tuple[Tensor, Tensor, Batch]:
    """Two smooth pictures at three levels of noise each, their clean versions, and what is known of them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 6, 6, generator=generator)
    clean = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    y = clean.repeat_interleave(3, 0)
    level = torch.tensor([0.0, 2.0, 4.0]).repeat(2)
    x = (y + level[:, None, None, None] / 10 * torch.randn(y.shape, generator=generator)).clamp(0, 1)
    content = torch.arange(COUNT) // 3
    target = 1 - level / 5 + 0.01 * content
    group = torch.where(level > 0, content, -1)
    known = Batch(x, y, target, content, content, group, level.double(), (level > 0).long(), "rows")
    return x, y, known


def learned(critic: Critic, objectives: dict[str, Any], side: int, rate: float = 2e-3) -> tuple[list[float], list[str]]:
    """Losses step by step, with the recipe's own parts, and parameters that nothing depends on."""
    set_seed(0)
    critic.unfreeze().train()
    x, y, known = photographs(side)
    source = Rows()
    has_y = critic.card.needs_reference or ask_references(objectives, [source.options])
    pairs = [(x, y if has_y else None)]
    reader = Reader(critic, looks=looks_of(objectives, [source.options]))
    _, idle = settle(reader, pairs)
    terms = Terms(objectives, [source], critic.card)
    learning = [p for p in (*critic.parameters(), *terms.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(learning, rate)
    losses = []
    for _ in range(12):
        loss, _ = terms(reader(pairs), [known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, idle


@pytest.mark.parametrize(
    ("name", "objectives", "side"),
    [
        ("tres-resnet18", {"tres": {"consistency": 1.0}}, 64),
        ("reqa", {"reqa": 1.0}, 64),
        ("dfss", {"regression": 1.0, "dfss": 1.0}, 128),
        ("fpr", {"fpr": 1.0}, 64),
        ("ranker", {"pairwise": {"kind": "hinge", "scale": 0.5, "clamp": 5, "within": "reference"}}, 64),
        ("uranker", {"pairwise": {"kind": "hinge", "scale": 0.5, "clamp": 5}}, 64),
        ("censeoqoe-nr", {"pairwise": {"kind": "hinge", "scale": "gaps", "max_gap": 2.0, "over": "all"}}, 64),
        ("asna", {"asna": {"mse": 0.2, "rank": 0.1}}, 64),
        ("gsn", {"kl": 1.0, "relative_kl": 1.0}, 64),
        ("monotonic", {"heads": 1.0}, 64),
        ("mini-nr", {"elo": {"scale": 1.0}, "spearman": 1.0, "kendall": 1.0, "difference": 1.0}, 64),
    ],
)
def test_a_system_is_taught_with_its_own_losses(name: str, objectives: dict[str, Any], side: int) -> None:
    critic = build_small(name) if name in SMALL else create_critic(name, weights=None)
    losses, idle = learned(critic, objectives, side, 5e-5 if name == "ranker" else 2e-3)
    assert min(losses[-3:]) < 0.95 * losses[0], losses
    if name == "fpr":  # the branch that sees the reference learns too
        assert not idle


def test_looks_see_the_images_of_their_source_and_need_their_critic() -> None:
    reader = Reader(create_critic(CRITIC, weights=None), looks=looks_of({"reqa": 1.0}, [SourceOptions(name="a")]))
    x, y, _ = photographs(64)
    with pytest.raises(ConfigError, match=rf"reqa: is for critics REQA, not '{CRITIC}'"):
        reader([(x, y)])
    mirror = Reader(create_critic(CRITIC, weights=None), looks=looks_of({"tres": 1.0}, [SourceOptions(name="a")]))
    ((q, _, looked),) = mirror([(x, y)])
    torch.testing.assert_close(looked["tres"][0], mirror.quality(x.flip(-1), y.flip(-1)))
    assert not torch.equal(looked["tres"][0], q)
    assert set(SYSTEMS) == {"tres", "reqa", "dfss", "fpr", "prefer", "steady"}
    assert ask_references({"fpr": 1.0}, [SourceOptions()]) and not ask_references({"tres": 1.0}, [SourceOptions()])
