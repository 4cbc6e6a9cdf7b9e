"""Critics of stereo pairs: what their parts must give on pairs whose depth is known."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from small import build_small

from perceptloss import Critic, CriticLoss, create_critic
from perceptloss.critics.multi_score_siqa import HEADS
from perceptloss.critics.stereo_srqa import agreement, match
from perceptloss.errors import ConfigError
from perceptloss.networks import matching
from perceptloss.networks.matching import correspondence, signs
from perceptloss.networks.parallax import row_scores, shares, valid
from perceptloss.teach.degradations.stereo import stereo_pair

SHIFT = 5


@cache
def critic(name: str) -> Critic:
    return build_small(name)


def columns(n: int = 24, seed: int = 0) -> torch.Tensor:
    """Features whose columns differ from each other, (1, 16, 3, n)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 16, 3, n, generator=generator, dtype=torch.float64)


def pairs(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 6, 12, 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, (72, 96), mode="bicubic").clamp(0, 1)


# ---- the attention and what it carries


def test_shares_of_a_row_sum_to_one():
    to_left, to_right = match(columns(), columns(seed=1), 7.0)
    for share in (to_left, to_right):
        torch.testing.assert_close(share.sum(-1), torch.ones(1, 3, 24, dtype=torch.float64))


def test_equal_views_find_themselves():
    f = columns()
    to_left, to_right = match(f, f, 400.0)
    torch.testing.assert_close(to_left, torch.eye(24, dtype=torch.float64).expand(1, 3, 24, 24), atol=1e-6, rtol=0)
    apart, mask = agreement(f, f, to_left, to_right)
    assert float(apart.abs().max()) < 1e-5
    torch.testing.assert_close(mask, torch.full_like(mask, math.tanh(5.0)), atol=1e-6, rtol=0)


def test_a_shifted_view_is_found_where_it_is_and_its_border_is_not_valid():
    wide = columns(24 + SHIFT)
    left, right = wide[..., :-SHIFT], wide[..., SHIFT:]  # right at u shows left at u + SHIFT
    to_left, to_right = match(left, right, 400.0)
    found = to_left.argmax(-1)[..., SHIFT:]
    assert torch.equal(found, torch.arange(24 - SHIFT).expand_as(found))
    _, mask = agreement(left, right, to_left, to_right)
    assert (mask[..., SHIFT:] > 0.99).all()
    received = to_right.sum(2)
    assert received[..., SHIFT:].sum() >= 3 * (24 - SHIFT) - 1e-6, "whoever is seen is seen once"


def test_the_mask_and_the_cycle_have_known_values():
    torch.testing.assert_close(valid(torch.tensor([0.0, 1.0])), torch.tensor([0.0, 0.99991]), atol=1e-5, rtol=0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    permutation = torch.eye(9)[order]
    to_left, to_right = shares(1000 * permutation), shares(1000 * permutation.mT)
    torch.testing.assert_close(to_left @ to_right, torch.eye(9))


def test_half_precision_keeps_the_small_shares_of_a_wide_row():
    scores = torch.zeros(1, 1, 1, 4096, dtype=torch.bfloat16)
    assert shares(scores).dtype == torch.float32
    assert float(shares(scores).sum()) == pytest.approx(1.0, abs=1e-5)


# ---- stereo-srqa


def test_exchanging_the_views_leaves_the_score():
    x = pairs().double()
    judge = critic("stereo-srqa").double()
    torch.testing.assert_close(judge(x), judge(x.roll(3, 1)))
    parts = judge.parts(judge.look(x))
    assert not torch.allclose(parts.views[0], parts.views[1]), "the views are not the same"
    judge.float()


@pytest.mark.parametrize("name", ["stereo-srqa", "multi-score-siqa"])
def test_the_gradient_reaches_both_views(name):
    x = pairs().requires_grad_()
    critic(name)(x).sum().backward()
    for view in x.grad.chunk(2, 1):
        assert (view.flatten(1).norm(dim=1) > 0).all()


def test_views_that_disagree_move_the_consistency_alone():
    """Rows of one view moved by two: each view looks as before."""
    judge, x = critic("stereo-srqa"), pairs()
    moved = torch.cat([x[:, :3], x[:, 3:].roll(16, 2)], 1)  # a whole cell of the last tap
    before, after = (judge.parts(judge.look(image)) for image in (x, moved))
    assert torch.equal(before.views[0], after.views[0])
    assert not torch.allclose(before.consistency, after.consistency)


def test_it_learns_beside_a_restorer():
    """In joint mode, also with its own step recomputed, it comes to prefer the ground truth."""
    options = {"widths": (8, 12, 16), "matched": 8, "hidden": 12}
    for recomputed in (False, True):
        joint = {"lr": 3e-3, "damage": [], "mix": False, "checkpoint": recomputed}
        term = {"critic": "stereo-srqa", "weights": None, "weight": 1.0, "joint": joint, "options": options}
        loss_fn = CriticLoss([term])
        y, x = pairs(), torch.nn.functional.avg_pool2d(pairs(), 5, 1, 2)
        judge = loss_fn.terms[0].critic
        before = float((judge(y) - judge(x)).mean())
        for step in range(12):
            loss_fn.learn(x, y, step=step)
        assert float((judge(y) - judge(x)).mean()) > before


# ---- stereo-consistency


def scene(shift: int = 6) -> torch.Tensor:
    """A pair of one surface, every window of which is unlike the others."""
    wide = torch.rand(1, 3, 40, 64 + shift, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.cat([wide[..., :-shift], wide[..., shift:]], 1)


def test_errors_that_have_the_depth_of_the_scene_cost_nothing_and_others_do():
    judge, y = create_critic("stereo-consistency").double(), scene()
    noise = 0.05 * torch.randn(1, 3, 40, 70, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with_depth = y + torch.cat([noise[..., :-6], noise[..., 6:]], 1)
    without = y + torch.cat([noise[..., :-6], noise[..., :-6]], 1)
    judge.overshoot = "pass"
    assert float(judge(y, y)) == 0
    assert float(judge(with_depth, y)) < 0.1 * float(judge(without, y))
    assert float(judge(without, y)) == pytest.approx(0.05 * 2 / math.pi**0.5, rel=0.1), "mean |a - b| of two normals"


def test_a_place_comes_back_to_itself_only_where_both_views_show_it():
    in_right, in_left, at_left, at_right = correspondence(row_scores(*map(signs, scene().chunk(2, 1))))
    assert at_left[..., 9:].mean() > 0.99 and at_left[..., :3].mean() < 0.3
    assert at_right[..., :-9].mean() > 0.99 and at_right[..., -3:].mean() < 0.3
    torch.testing.assert_close(in_right[..., 9:-3], torch.arange(3.0, 55).expand(1, 40, 52).double(), atol=0.1, rtol=0)
    torch.testing.assert_close(in_left[..., 3:-9], torch.arange(9.0, 61).expand(1, 40, 52).double(), atol=0.1, rtol=0)


def test_places_are_found_between_pixels():
    coarse = torch.rand(1, 3, 10, 26, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    photo = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    pair, _ = stereo_pair(photo, 0, 8.0, torch.full((1, 1, 40, 96), 5.5, dtype=torch.float64))
    in_right, _, at_left, _ = correspondence(row_scores(*map(signs, pair.chunk(2, 1))))
    shift = (torch.arange(96) - in_right)[at_left > 0]
    assert float(shift.median()) == pytest.approx(5.5, abs=0.1) and at_left[..., 10:].mean() > 0.9


@pytest.mark.parametrize("name", ["stereo-consistency", "stereo-matching"])
def test_strips_of_rows_are_one_image(name, monkeypatch):
    """The rows that are matched at once make no difference."""
    judge, x, y = create_critic(name).double(), drawn(6.0, 0.02), drawn(6.0)
    whole = judge(x, y)
    monkeypatch.setattr(matching, "_ROWS", 7)
    torch.testing.assert_close(judge(x, y), whole)


def test_each_nth_row_is_a_sample_of_all():
    y = scene()
    x = (y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)).clamp(0, 1)
    every, third = (create_critic("stereo-consistency", options={"every": n}).double() for n in (1, 3))
    assert float(third(x, y)) == pytest.approx(float(every(x, y)), rel=0.1)
    x = x.requires_grad_()
    third(x, y).sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)) > 0
    assert rows[::3].all() and not rows[1::3].any()
    with pytest.raises(ConfigError, match="at least 1"):
        create_critic("stereo-consistency", options={"every": 0})


# ---- stereo-matching


def drawn(shift: float, locked: float = 0.0) -> torch.Tensor:
    """A faintly textured pair of one disparity, with stripes of period 4 at the same columns of both views."""
    coarse = torch.rand(1, 3, 10, 26, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    photo = 0.4 + 0.05 * torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic")
    pair, _ = stereo_pair(photo, 0, 8.0, torch.full((1, 1, 40, 96), shift, dtype=torch.float64))
    return pair + locked * (torch.arange(96) % 4 == 3).double()


def test_what_locks_the_matches_costs_where_it_is_at_odds_with_the_depth():
    """The same stripes change nothing about a disparity of a whole period, and draw another one to theirs."""
    judge = create_critic("stereo-matching").double()
    free, bound = (float(judge(drawn(shift, 0.02), drawn(shift))) for shift in (4.0, 6.0))
    assert float(judge(drawn(6.0), drawn(6.0))) == 0
    assert bound > 3 * free > 0


def test_less_light_matches_alike_and_views_apart_do_not():
    judge, y = create_critic("stereo-matching").double(), scene()
    apart = torch.cat([y[:, :3], y[:, 3:].flip(3)], 1)
    assert float(judge(0.7 * y, y)) < 1e-3 < 0.01 * float(judge(apart, y))


def test_each_nth_row_of_matches_is_a_sample_of_all():
    judge, x, y = create_critic("stereo-matching").double(), drawn(6.0, 0.02), drawn(6.0)
    whole = judge(x, y)
    third = create_critic("stereo-matching", options={"every": 3}).double()
    assert float(third(x, y)) == pytest.approx(float(whole), rel=0.1)


def test_wrong_options_of_matching_are_told_at_once():
    with pytest.raises(ConfigError, match=r"(?s)options.every must.*options.sharpness must.*got -1"):
        create_critic("stereo-matching", options={"every": 0, "sharpness": -1})


# ---- multi-score-siqa


def test_four_scores_of_which_the_first_is_the_score():
    judge, x = critic("multi-score-siqa"), pairs()
    heads = judge.heads(x)
    assert heads.shape == (2, len(HEADS)) and (heads >= 0).all()
    assert torch.equal(heads[:, 0], judge(x))
    other = torch.cat([x[:, :3], pairs(1)[:, 3:]], 1)
    changed = judge.heads(other)
    assert torch.equal(changed[:, HEADS.index("left")], heads[:, HEADS.index("left")])
    assert not torch.allclose(changed[:, HEADS.index("right")], heads[:, HEADS.index("right")])


def test_scores_do_not_change_from_call_to_call():
    judge, x = critic("multi-score-siqa"), pairs()
    assert torch.equal(judge(x), judge(x))


def test_the_last_cells_are_read_on_request():
    options = {"widths": (6, 6, 8, 8, 12), "hidden": (24, 16), "joined": 24}
    x = torch.rand(1, 6, 64, 96)
    cells = [
        create_critic("multi-score-siqa", weights=None, options={**options, "all_cells": every}).maps(x).shape[2:]
        for every in (False, True)
    ]
    assert cells == [(1, 2), (2, 3)]
