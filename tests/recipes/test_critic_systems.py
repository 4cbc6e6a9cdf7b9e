"""The losses of published systems by their names in the configuration: a few steps teach the system's own critic."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate.utils import set_seed
from critic_helpers import CRITIC
from small import SMALL, build_small
from torch import Tensor

from perceptloss import Critic, create_critic, get_card
from perceptloss.errors import ConfigError
from perceptloss.teach.objectives.unlabelled import positive_unlabelled
from perceptloss.teach.run.critic import Reader, settle
from perceptloss.teach.run.judged import Judged
from perceptloss.teach.run.objectives import OBJECTIVES
from perceptloss.teach.run.papers import PAPERS
from perceptloss.teach.run.sources import Batch, SourceOptions
from perceptloss.teach.run.systems import SYSTEMS
from perceptloss.teach.run.terms import Terms, ask_references, looks_of

COUNT = 6


class Rows:
    """A source that knows everything."""

    kinds = ("clean", "enlarge-bicubic")
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
        ("jspl", {"regression": 1.0, "jspl": 0.1}, 64),
        ("ddbnet", {"retinex": 1.0}, 64),
        ("unified-fr", {"regression": 1.0, "twin": {"margin": 0.1}}, 64),
        ("biqa4k", {"regression": 1.0, "native": 1.0}, 64),
        ("mini-nr", {"elo": {"scale": 1.0}, "spearman": 1.0, "kendall": 1.0, "difference": 1.0}, 64),
    ],
)
def test_a_system_is_taught_with_its_own_losses(name: str, objectives: dict[str, Any], side: int) -> None:
    critic = build_small(name) if name in SMALL else create_critic(name, weights=None)
    losses, idle = learned(critic, objectives, side, 5e-5 if name == "ranker" else 2e-3)
    assert min(losses[-3:]) < 0.95 * losses[0], losses
    if name in ("fpr", "unified-fr"):  # what the score does not read learns too
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
    assert set(PAPERS) == {"jspl", "native", "retinex", "twin"}
    assert ask_references({"fpr": 1.0}, [SourceOptions()]) and not ask_references({"tres": 1.0}, [SourceOptions()])


def judged(logits: list[float], level: list[float], kind: list[int], target: float = 0.5) -> Judged:
    count = len(logits)
    places, q = torch.arange(count), torch.zeros(count)
    columns = (places, places, places, torch.tensor(level), torch.tensor(kind))
    looked = (torch.tensor(logits), torch.ones(count))
    return Judged(q, None, torch.full((count,), target), *columns, get_card("biqa4k"), looked)


def test_native_resolution_is_told_from_enlargement_alone() -> None:
    source = Rows()
    source.kinds = ("clean", "enlarge-bicubic", "jpeg", "chain-mixed")
    part = PAPERS["native"].part({}, source, 0)
    rows = judged([2.0, -1.0, 9.0, 9.0], [0.0, 3.0, 3.0, math.nan], [0, 1, 2, 3])
    wanted = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert float(PAPERS["native"].loss(rows, part, {})) == pytest.approx(wanted)
    source.kinds = ("clean", "jpeg")
    with pytest.raises(ConfigError, match="no damage of the family enlarge is taught"):
        PAPERS["native"].part({}, source, 0)


def test_images_without_labels_are_taught_what_they_and_their_mirror_images_say() -> None:
    loss = PAPERS["jspl"].loss
    labelled, others = judged([0.0, 0.0], [0.0, 1.0], [0, 1]), judged([3.0, -3.0], [0.0, 1.0], [0, 1], math.nan)
    assert float(loss(labelled, None, {"pseudo": 8.0})) == pytest.approx(math.log(2))
    alone = positive_unlabelled(others.looked[0], torch.zeros(2, dtype=torch.bool))
    assert float(loss(others, None, {"pseudo": 8.0}) - alone) == pytest.approx(8 * 0.5**2 / 2)


def test_losses_that_look_at_images_refuse_what_is_remembered() -> None:
    reader = Reader(build_small("jspl"), looks=looks_of({"jspl": 1.0}, [SourceOptions(name="a")]), shapes={})
    look = PAPERS["jspl"].look
    with pytest.raises(ConfigError, match=r"jspl: looks at images: leave out critic\.remember"):
        look(reader, torch.zeros(2, 10), torch.zeros(2, 10), {})


def test_targets_are_put_onto_the_bounds_that_a_score_cannot_leave() -> None:
    objective = OBJECTIVES["regression"]
    row = judged([0.0] * 2, [0.0, 1.0], [0, 1], 0.25)
    pmos = replace(row, card=get_card("pmos"), q=torch.tensor([2.0, 5.0]))  # from 1 to 5
    assert float(objective.loss(pmos, torch.nn.Identity(), {"error": "l1", "onto": "card"})) == pytest.approx(1.5)
    for name in ("biqa4k", "pmos-map"):
        with pytest.raises(ConfigError, match=f"'{name}' has"):
            objective.loss(replace(row, card=get_card(name)), torch.nn.Identity(), {"onto": "card"})
