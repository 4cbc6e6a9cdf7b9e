"""Losses without labels and of decompositions: values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from perceptloss.errors import InputError
from perceptloss.teach.objectives.retinex import retinex_loss, smoothness
from perceptloss.teach.objectives.unlabelled import positive_unlabelled, pseudo_labelled

LN2 = math.log(2)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestPositiveUnlabelled:
    def test_every_part_is_ln_2_where_nothing_is_known(self):
        logits, none = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.bool)
        some = torch.arange(6) < 2
        for is_labelled, parts in ((~none, 1), (none, 2), (some, 3)):
            assert float(positive_unlabelled(logits, is_labelled)) == pytest.approx(parts * LN2)

    def test_is_the_formula_in_probabilities(self):
        h = doubles(0.9, 0.6, 0.8, 0.3)
        labelled = torch.tensor([True, True, False, False])
        entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (0.8, 0.3)) / 2
        wanted = -(math.log(0.9) + math.log(0.6)) / 2 + entropy - math.log(1 - 0.3)
        assert float(positive_unlabelled(torch.logit(h), labelled)) == pytest.approx(wanted)

    def test_one_negative_is_asked_for_and_one_image_hears_it(self):
        logits = doubles(30.0, 30.0, 30.0, 20.0).requires_grad_()
        positive_unlabelled(logits, torch.tensor([True, True, False, False])).backward()
        assert logits.grad[:3].abs().max() < 1e-9
        assert float(logits.grad[3]) == pytest.approx(1, abs=1e-6)

    def test_sure_logits_stay_finite(self):
        logits = doubles(1e4, -1e4, 1e4, -1e4).requires_grad_()
        loss = positive_unlabelled(logits, torch.tensor([True, True, False, False]))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()

    def test_lists_that_do_not_fit_are_refused(self):
        with pytest.raises(InputError, match="which are labelled"):
            positive_unlabelled(torch.zeros(3), torch.zeros(4, dtype=torch.bool))
        with pytest.raises(InputError, match="bool"):
            positive_unlabelled(torch.zeros(3), torch.zeros(3))


def test_labels_of_ones_own_count_where_the_classifier_says_so():
    q, label = doubles(1.0, 2.0, 5.0).requires_grad_(), doubles(0.0, 0.0, 0.0).requires_grad_()
    loss = pseudo_labelled(q, label, doubles(0.1, 3.0, -0.1))
    assert float(loss) == pytest.approx((1 + 4) / 3)
    loss.backward()
    torch.testing.assert_close(q.grad, doubles(2 / 3, 4 / 3, 0.0))
    assert label.grad is None
    assert float(pseudo_labelled(q[:0], label[:0], doubles())) == 0


class TestRetinex:
    def test_every_way_to_share_out_an_image_explains_it(self):
        image = torch.rand(2, 3, 6, 8, dtype=torch.float64) / 2
        for c in (1.0, 2.0):
            layers = image * c, torch.full((2, 1, 6, 8), 1 / c, dtype=torch.float64)
            assert retinex_loss(image, image, layers, layers).abs().max() < 1e-12

    def test_is_the_weighted_sum_of_its_parts(self):
        full = torch.ones(1, 3, 4, 4, dtype=torch.float64)
        x, y, light = 0.2 * full, 0.8 * full, full[:, :1]
        of_x, of_y = (0.5 * full, 0.3 * light), (0.7 * full, 0.9 * light)
        straight = abs(0.15 - 0.2) + abs(0.63 - 0.8)
        crossed = abs(0.7 * 0.3 - 0.2) + abs(0.5 * 0.9 - 0.8)
        found = retinex_loss(x, y, of_x, of_y, cross=0.3, reflectance=0.5, smooth=0.7)
        assert float(found) == pytest.approx(straight + 0.3 * crossed + 0.5 * 0.2)

    def test_edges_of_light_cost_less_where_the_reflectance_has_one(self):
        light = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
        light[..., 2:] = 1
        flat = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
        across = 4 / 12  # four of twelve differences across are 1
        assert float(smoothness(flat, light)) == pytest.approx(across)
        assert float(smoothness(light.expand(-1, 3, -1, -1), light)) == pytest.approx(across * math.exp(-10))
        assert float(smoothness(flat, light.transpose(2, 3))) == pytest.approx(across)
        assert float(smoothness(light.expand(-1, 3, -1, -1), 0.5 + 0 * light)) == 0
