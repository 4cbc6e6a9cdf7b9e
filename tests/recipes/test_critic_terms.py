"""What is minimised: objectives by name, over pairs that make sense, of a critic that can learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from critic_helpers import CRITIC
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.compare.statistics.measures import srcc
from perceptloss.errors import ConfigError
from perceptloss.teach.exams.evaluate import choose_rows, exam_problems, figures, look_up
from perceptloss.teach.run.critic import Reader, build_critic, parameter_groups, quality_of, settle
from perceptloss.teach.run.export import card_problems
from perceptloss.teach.run.judged import Judged
from perceptloss.teach.run.objectives import OBJECTIVES
from perceptloss.teach.run.options import CardText, CriticOptions
from perceptloss.teach.run.papers import PAPERS
from perceptloss.teach.run.peers import build_peers
from perceptloss.teach.run.saving import export, stamp
from perceptloss.teach.run.sources import Batch, Exam, SourceOptions
from perceptloss.teach.run.systems import SYSTEMS
from perceptloss.teach.run.terms import Terms, parse_objectives
from perceptloss.weights.checkpoints import read_facts


class Rows:
    """A source that is nothing but what it knows."""

    kinds = ("blur", "clean", "noise")

    def __init__(self, label: str = "rows", gives: str = "target levels clean kinds", **changed: Any) -> None:
        self.options = SourceOptions(name=label, **changed)
        self.gives = frozenset(gives.split())


def batch(**columns: Any) -> Batch:
    """Six images: two places, a ladder at each, of the second the clean image too."""
    base = {
        "target": torch.tensor([0.8, 0.5, 0.1, 1.0, 0.6, 0.2]),
        "content": torch.tensor([0, 0, 0, 1, 1, 1]),
        "reference": torch.tensor([0, 0, 0, 1, 1, 1]),
        "group": torch.tensor([4, 4, 4, -1, 5, -1]),
        "level": torch.tensor([1.0, 2.0, 3.0, 0.0, 2.0, math.nan], dtype=torch.float64),
        "kind": torch.tensor([0, 0, 0, 1, 2, 2]),
    }
    image = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    return Batch(image, None, dataset="rows", **{**base, **columns})


def judged(q: Tensor, card: str = CRITIC, **columns: Any) -> Judged:
    b = batch(**columns)
    assert b.target is not None
    return Judged(q, torch.randn(len(q), 5), b.target, b.content, b.reference, b.group, b.level, b.kind, get_card(card))


def compute(name: str, given: Judged, **options: Any) -> Tensor:
    return OBJECTIVES[name].loss(given, None, options)


def test_order_compares_levels_of_a_ladder_and_clean_with_damaged_images_of_the_place_only() -> None:
    q = torch.zeros(6, requires_grad=True)
    compute("order", judged(q), scale=0.5).backward()
    assert q.grad is not None
    assert q.grad[0] < 0 < q.grad[2]
    assert q.grad[3] < 0 < q.grad[4]
    assert q.grad[5] > 0  # a chain, known to be worse than clean alone
    good = torch.tensor([5.0, 3.0, 1.0, 0.0, -2.0, -2.0])  # places are not compared
    assert compute("order", judged(good), scale=0.5) == 0
    swapped = torch.tensor([3.0, 5.0, 1.0, 0.0, -2.0, -2.0])
    assert compute("order", judged(swapped), scale=0.5) > 0
    chain_first = torch.tensor([5.0, 3.0, 1.0, 0.0, -3.0, -2.0])  # it is not compared with the ladder
    assert compute("order", judged(chain_first), scale=0.5) == 0


@pytest.mark.parametrize(("within", "expected"), [("all", True), ("content", False)])
def test_pairwise_stays_within_a_photograph_if_told_to(within: str, expected: bool) -> None:
    q = torch.tensor([0.8, 0.5, 0.1, -1.0, -1.6, -2.2])  # right within photographs, wrong between them
    assert bool(compute("pairwise", judged(q), within=within, kind="hinge", scale=0.1) > 0) == expected


def test_identity_pins_clean_images_in_natural_units() -> None:
    q = torch.tensor([1.0, 1.0, 1.0, -0.25, 1.0, 1.0], requires_grad=True)  # lower is better: the score is 0.25
    loss = compute("identity", judged(q))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.25)
    assert q.grad is not None and q.grad.nonzero().tolist() == [[3]]
    assert float(compute("identity", judged(q.detach()), value=0.1)) == pytest.approx(0.15)
    assert compute("identity", judged(q, level=torch.ones(6, dtype=torch.float64))) == 0
    with pytest.raises(ConfigError, match="names no score; give a value"):
        compute("identity", judged(q, card="tres"))


def test_images_without_target_do_not_count() -> None:
    target = torch.tensor([0.8, 0.5, math.nan, 1.0, 0.6, math.nan])
    q = torch.rand(6, requires_grad=True)
    for name in ("pearson", "pairwise", "norm_in_norm", "tolerance"):
        q.grad = None
        compute(name, judged(q, target=target)).backward()
        assert q.grad is not None and torch.equal(q.grad[[2, 5]], torch.zeros(2)), name


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - SYSTEMS.keys() - PAPERS.keys()))
def test_every_objective_can_be_learned_through_terms(name: str) -> None:
    torch.manual_seed(1)
    content = torch.arange(24) // 6
    level = (torch.arange(24) % 6).double()
    known = {
        "content": content,
        "reference": content,
        "group": torch.where(level > 0, content, -1),
        "level": level,
        "kind": torch.where(level > 0, content % 2 * 2, 1),
        "target": (1 - level / 5 + 0.05 * torch.rand(24)).float(),
    }
    rows = Batch(torch.zeros(24, 3, 4, 4, dtype=torch.uint8), None, dataset="rows", **known)
    options = {"scale": 1.0} if name == "elo" else {}
    terms = Terms({name: options}, [Rows()], get_card(CRITIC), width=5)
    q = torch.nn.Parameter(torch.rand(24))
    features = torch.nn.Parameter(torch.randn(24, 5))
    optimizer = torch.optim.Adam([q, features, *terms.parameters()], 0.02)
    losses = []
    for _ in range(60):
        loss, report = terms([(q, features)], [rows])
        assert report[f"rows/{name}"] == loss.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    if name not in ("identity", "proxies", "extremes", "asna"):
        assert srcc(q.detach().numpy(), known["target"].numpy()) > 0.8


def test_weights_of_objectives_and_sources_multiply() -> None:
    sources = [Rows("a", weight=3.0), Rows("b", objectives={"mine": {"objective": "regression", "weight": 0.5}})]
    terms = Terms({"pearson": 2.0}, sources, get_card(CRITIC))
    q = torch.rand(6)
    total, report = terms([(q, None), (q / 2, None)], [batch(), batch()])
    assert set(report) == {"a/pearson", "b/mine"}
    assert total == pytest.approx(float(6 * report["a/pearson"] + 0.5 * report["b/mine"]))
    learned = Terms({"pearson": 2.0}, sources, get_card(CRITIC), "uncertainty")
    half, _ = learned([(q, None), (q / 2, None)], [batch(), batch()])
    assert float(half.detach()) == pytest.approx(float(total) / 2)
    assert learned.balance is not None and len(list(learned.balance.parameters())) == 2


def test_all_problems_of_objectives_come_at_once() -> None:
    wrong: dict[str, Any] = {"pearsn": 1, "order": {"margin": 1}, "kl": {"weight": -1}}
    with pytest.raises(ConfigError) as caught:
        parse_objectives(
            {"pearsn": 1, "order": {"margin": 1}, "kl": {"weight": -1}, "z": {"objective": "rank"}, "ccc": True},
            "objectives",
        )
    text = "\n".join(caught.value.problems)
    for part in (
        "no objective is called 'pearsn'; did you mean 'pearson'",
        "order has no option 'margin'; it has kind, scale, clamp",
        "objectives.kl: expected a weight of at least 0, got -1",
        "objectives.z: no objective is called 'rank'",
        "objectives.ccc: expected a weight",
    ):
        assert part in text, text
    with pytest.raises(ConfigError) as caught:
        Terms(
            {"pearson": 1, "order": 1}, [Rows("bare", "levels"), Rows("full", objectives={"kl": 0})], get_card(CRITIC)
        )
    assert "pearson: needs target, which source 'bare' does not have" in caught.value.problems[0]
    assert "full: no objective has a weight" in caught.value.problems[1]
    wrong = {"order": {"kind": "best"}, "regression": {"error": "l3"}, "pairwise": {"within": "town"}}
    with pytest.raises(ConfigError, match=r"regression\.error: one of huber, l1, l2, got 'l3'"):
        Terms(wrong, [Rows()], get_card(CRITIC))
    del wrong["regression"]
    with pytest.raises(ConfigError) as caught:
        Terms(wrong, [Rows()], get_card(CRITIC))
    assert len(caught.value.problems) == 2


# --- the critic ---------------------------------------------------------------------------------


def test_random_weights_follow_from_the_seed_and_fixed_parameters_do_not_learn() -> None:
    one, same, other = (build_critic(CriticOptions(name=CRITIC), seed) for seed in (0, 0, 1))
    first = [c.heads[0] for c in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert all(p.requires_grad for p in one.parameters()) and one.training
    fixed = build_critic(CriticOptions(name=CRITIC, fixed=("trunk.*",)), 0)
    assert {n.partition(".")[0] for n, p in fixed.named_parameters() if p.requires_grad} == {"heads"}
    with pytest.raises(ConfigError, match=r"no parameter fits 'trunc\.\*'; their names begin with heads, trunk"):
        build_critic(CriticOptions(name=CRITIC, fixed=("trunc.*",)), 0)
    with pytest.raises(ConfigError, match="no parameter left to learn"):
        build_critic(CriticOptions(name="ssim"), 0)
    with pytest.raises(ConfigError, match="has no option 'widht'"):
        build_critic(CriticOptions(name=CRITIC, options={"widht": 3}), 0)


def test_qualities_point_up_and_features_are_those_of_x() -> None:
    critic = build_critic(CriticOptions(name=CRITIC), 0)
    reader = Reader(critic, tap="fire5").eval()
    y = torch.rand(3, 3, 32, 32)
    x = (y + 0.3 * torch.randn(y.shape)).clamp(0, 1)
    small = torch.rand(2, 3, 40, 40)
    (q, v, _), (q2, v2, _), (q3, *_) = reader([(x, y), (small, small), (y, y)])
    assert torch.allclose(q, -critic(x, y), atol=1e-6)
    assert (q < q3).all() and torch.equal(q3, torch.zeros(3)) and torch.equal(q2, torch.zeros(2))
    assert v is not None and v2 is not None and v.shape == (3, 256) and v2.shape == (2, 256)
    assert not torch.allclose(v, reader([(y, y)])[0][1])
    width, idle = settle(reader, [(x, y)])
    assert (width, idle) == (256, [])
    with pytest.raises(ConfigError, match="no tap or module"):
        Reader(critic, tap="fire55")


def test_parameters_that_no_score_depends_on_are_fixed() -> None:
    critic = build_critic(CriticOptions(name=CRITIC), 0)
    critic.spare = torch.nn.Linear(3, 3)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    y = torch.rand(1, 3, 32, 32)
    _, idle = settle(Reader(critic), [((y + 0.1).clamp(0, 1), y)])
    assert idle == ["spare.weight", "spare.bias"]
    assert not critic.spare.weight.requires_grad and critic.trunk.features[0].weight.requires_grad
    assert all(p.grad is None for p in critic.parameters())
    assert all(torch.equal(before[n], v) for n, v in critic.state_dict().items())
    terms = Terms({"heads": 1.0}, [Rows()], critic.card, "uncertainty")
    groups = parameter_groups(critic, terms, 0.1)
    assert [g["pace"] for g in groups] == [1.0, 1.0, 1.0, 10.0]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0, 0.0, 0.0]
    ids = [id(p) for g in groups for p in g["params"]]
    wanted = [id(p) for p in (*critic.parameters(), *terms.parameters()) if p.requires_grad]
    assert sorted(ids) == sorted(wanted)


def test_exported_files_load_by_name_and_take_facts_without_changing_weights(tmp_path: Path) -> None:
    critic = build_critic(CriticOptions(name=CRITIC), 3)
    path = tmp_path / "models" / "mine.safetensors"
    export(critic, path, {"step": 7})
    loaded = create_critic(CRITIC, weights=path)
    x, y = torch.rand(2, 2, 3, 32, 32)
    critic.freeze()
    assert torch.equal(loaded(x, y), critic(x, y))
    assert torch.equal(quality_of(loaded, x, y), -loaded(x, y))
    assert read_facts(path)["step"] == 7
    bytes_before = path.read_bytes()
    facts = {"licence": "MIT", "step": 7}
    stamp(path, facts)
    assert path.read_bytes() != bytes_before
    again = path.stat().st_mtime_ns
    stamp(path, facts)
    assert path.stat().st_mtime_ns == again
    assert read_facts(path)["licence"] == "MIT" and read_facts(path)["critic"] == CRITIC
    assert create_critic(CRITIC, weights=path).weights_id == loaded.weights_id


# --- exams --------------------------------------------------------------------------------------


def exam(**changed: Any) -> Exam:
    level = np.tile([0.0, 1, 2, 3, 1, 2, 3], 6)
    content = np.repeat(np.arange(6), 7)
    kind = np.tile([0, 1, 1, 1, 2, 2, 2], 6)
    base: dict[str, Any] = {
        "name": "held",
        "target": -level,
        "content": content,
        "reference": content,
        "group": np.where(level > 0, content * 3 + kind, -1),
        "level": level,
        "family": np.array(["", "blur", "noise"])[kind],
        "unseen": frozenset({"noise"}),
        "images": lambda rows: (torch.zeros(len(rows), 3, 8, 8, dtype=torch.uint8), None),
        "batch": 4,
        "about": "numbers.",
    }
    return Exam(**{**base, **changed})


def test_figures_of_seen_and_unseen_families_are_apart() -> None:
    held = exam()
    rows = np.arange(len(held.target))
    predicted = np.where(held.family == "noise", held.level, -held.level)  # right on blur, upside down on noise
    found = figures(held, rows, predicted, 50, by_family=True)
    assert set(found) == {"all", "seen", "unseen", "family:blur", "family:noise"}
    for figure, right in (("srcc", 1.0), ("krcc", 1.0), ("pairwise", 1.0), ("levels", 1.0)):
        assert found["seen"][figure]["value"] == pytest.approx(right)
        assert found["unseen"][figure]["value"] == pytest.approx(0.0 if figure in ("pairwise", "levels") else -1.0)
    assert found["all"]["srcc"]["low"] <= found["all"]["srcc"]["value"] <= found["all"]["srcc"]["high"]
    assert (found["all"]["srcc"]["count"], found["seen"]["levels"]["count"]) == (42, 18)
    assert look_up({"held": found}, "held/seen/srcc") == pytest.approx(1.0)
    constant = figures(held, rows, np.zeros(len(rows)), 0)
    assert constant["all"]["srcc"]["value"] is None and "constant" in constant["all"]["srcc"]["why"]
    assert look_up({"held": constant}, "held/all/srcc") is None


def test_a_limit_keeps_whole_photographs() -> None:
    held = exam()
    rows = choose_rows(held, 20, 0)
    assert len(rows) == 14
    assert len(np.unique(held.content[rows])) == 2
    assert np.array_equal(rows, choose_rows(held, 20, 0))
    assert len(choose_rows(held, 0, 0)) == len(choose_rows(held, 100, 0)) == 42


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("held/srcc", "expected EXAM/PART/FIGURE"),
        ("hold/all/srcc", "did you mean 'held'"),
        ("held/some/srcc", "there are all, seen, unseen"),
        ("held/all/srrc", "there are srcc, plcc"),
    ],
)
def test_wrong_figures_to_choose_by_are_explained(path: str, part: str) -> None:
    assert part in exam_problems(path, [exam()], has_card=True)[0]


def test_one_photograph_gives_no_intervals_for_a_card() -> None:
    lonely = exam(content=np.zeros(42, dtype=int))
    assert "no interval" in exam_problems("", [lonely], has_card=True)[0]
    assert (
        exam_problems("", [lonely], has_card=False)
        == exam_problems("held/unseen/levels", [exam()], has_card=True)
        == []
    )


def test_cards_lack_nothing_and_peers_fit() -> None:
    found = "\n".join(card_problems(CardText(sources=[{"folder": "a", "licence": "MIT", "author": "b"}])))
    for part in ("card.summary", "card.licence", "card.known_failures", "lacks attribution", "unknown key 'author'"):
        assert part in found
    assert card_problems(CardText(write=False)) == []
    with pytest.raises(ConfigError) as caught:
        build_peers(["ssmi", "ssim", "gmsd"], get_card("tres"), torch.device("cpu"))
    assert [p.partition(":")[0] for p in caught.value.problems] == ["ssmi", "ssim", "gmsd"]
    assert list(build_peers({"ssim": None}, get_card(CRITIC), torch.device("cpu"))) == ["ssim"]
