"""BIQA-4K: which patches are chosen, that both modes look at the right places, and what the two heads say."""

from __future__ import annotations

import pytest
import torch
from images import pair, photographs
from small import build_small, small_card
from torch import Tensor, nn

from perceptloss import CriticLoss, get_card
from perceptloss.critics.biqa4k.critic import BIQA4K, BIQA4KFR, crops
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.weights.convert import load_states

SIZES = {"side": 32, "widths": (8, 10, 12, 16), "width": 8, "hidden": 12}


@pytest.fixture
def nr() -> BIQA4K:
    return build_small("biqa4k").double()


@pytest.fixture
def fr() -> BIQA4KFR:
    return build_small("biqa4k-fr").double()


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    x, y = pair(2, 100, 130, dtype=torch.float64)
    return x.flip(3), y  # textured in other places


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def black(*boards: tuple[int, int], side: int = 32, rows: int = 3, columns: int = 4) -> Tensor:
    """A black image with checkerboards in some cells, (1, 3, rows * side, columns * side)."""
    image = torch.zeros(1, 3, rows * side, columns * side, dtype=torch.float64)
    board = ((torch.arange(side)[:, None] + torch.arange(side)) % 2).double()
    for top, left in boards:
        image[..., top : top + side, left : left + side] = board
    return image


class TestSelection:
    def test_the_only_textured_cells_are_chosen(self, nr):
        boards = [(0, 96), (32, 32), (64, 0)]
        assert nr.select(black(*boards)).tolist() == [[list(corner) for corner in boards]]

    def test_equal_texture_is_chosen_row_by_row(self, nr):
        first = [[[0, 0], [0, 32], [0, 64]]]
        assert nr.select(black()).tolist() == first
        everywhere = [(top, left) for top in (0, 32, 64) for left in (0, 32, 64, 96)]
        assert nr.select(black(*everywhere)).tolist() == first
        assert nr.select(black((32, 64))).tolist() == [[[32, 64], [0, 0], [0, 32]]]

    def test_stronger_texture_comes_first(self, nr):
        image = black((0, 0), (32, 0), (64, 96))
        image[..., :32, :32] *= 0.4
        image[..., 32:64, :32] *= 0.8
        assert nr.select(image).tolist() == [[[64, 96], [32, 0], [0, 0]]]

    def test_spread_takes_quantiles(self):
        critic = BIQA4K(small_card("biqa4k", 32), **SIZES, pick="spread").freeze()
        image = torch.zeros(1, 3, 32, 11 * 32)
        strengths = [0.3, 0.9, 0.1, 0.5, 0.7, 1.0, 0.2, 0.8, 0.4, 0.6, 0.0]
        for number, strength in enumerate(strengths):
            image[..., 32 * number : 32 * number + 32] = strength * black((0, 0), rows=1, columns=1)
        lefts = critic.select(image)[0, :, 1] // 32
        assert [strengths[i] for i in lefts] == [0.9, 0.5, 0.1]
        assert critic.select(image[..., :64]).shape == (1, 2, 2), "fewer cells than patches: all of them"

    def test_a_4k_frame_has_120_cells_of_which_three_are_taken(self, nr):
        nr.side = 256
        image = torch.full((1, 3, 2160, 3840), 0.5)
        for top, left in ((1792, 3584), (256, 1024), (512, 0)):
            image[..., top : top + 256, left : left + 256] = black((0, 0), side=256, rows=1, columns=1)
        assert sorted(nr.select(image)[0].tolist()) == [[256, 1024], [512, 0], [1792, 3584]]
        image[..., 2048:, :] = torch.rand(112, 3840)  # below the last full cell
        assert sorted(nr.select(image)[0].tolist()) == [[256, 1024], [512, 0], [1792, 3584]]

    def test_grid_may_be_moved(self, nr):
        image = black((32, 32))
        moved = image.roll((5, 7), (2, 3))
        assert nr.select(moved, (5, 7))[0, 0].tolist() == [37, 39]
        with pytest.raises(InputError, match=r"no 32x32 cell fits into 96x128 from \(70, 0\)"):
            nr.select(image, (70, 0))

    def test_images_of_a_batch_choose_for_themselves(self, nr):
        both = torch.cat([black((64, 64)), black((0, 96))])
        assert nr.select(both)[:, 0].tolist() == [[64, 64], [0, 96]]

    def test_options_are_checked_together(self):
        with pytest.raises(ConfigError, match=r"(?s)2 problems.*unknown statistic 'sharpness'.*got 'all'"):
            BIQA4K(get_card("biqa4k"), **SIZES, statistic="sharpness", pick="all")
        with pytest.raises(ConfigError, match="'spread' picks 3 patches, got 5"):
            BIQA4K(get_card("biqa4k"), **SIZES, pick="spread", patches=5)


class TestCrops:
    def test_are_the_squares_at_the_boxes(self):
        image = torch.rand(2, 3, 20, 30)
        boxes = torch.tensor([[[0, 0], [12, 22], [3, 5]], [[1, 2], [1, 2], [7, 0]]])
        patches = crops(image, boxes, 8)
        assert patches.shape == (6, 3, 8, 8)
        for number, (top, left) in enumerate(boxes.flatten(0, 1).tolist()):
            assert torch.equal(patches[number], image[number // 3, :, top : top + 8, left : left + 8])


class TestScore:
    def test_is_the_mean_over_patches(self, nr, images):
        x, _ = images
        boxes = nr.select(x)
        single = torch.stack([nr.score_at(x, boxes[:, i : i + 1]) for i in range(3)])
        torch.testing.assert_close(nr(x), single.mean(0))
        assert torch.equal(nr(x), nr.score_at(x, boxes))
        patch = x[:1, :, boxes[0, 0, 0] :, boxes[0, 0, 1] :][..., :32, :32]
        torch.testing.assert_close(nr(patch), single[0, :1])

    def test_vectors_are_mean_and_deviation_of_every_stage(self, nr, images):
        patches = images[0][..., :32, :32]
        taps = nr.trunk(patches, nr.taps)
        expected = []
        for tap, project in zip(nr.taps, nr.project, strict=True):
            flat = taps[tap].flatten(2)
            expected.append(project(torch.cat([flat.mean(2), flat.std(2, correction=0)], 1)))
        torch.testing.assert_close(nr.vectors(taps), torch.cat(expected, 1))

    def test_without_a_reference_the_image_chooses_and_with_one_the_reference(self, nr, fr, images):
        x, y = images
        fr.load_state_dict(nr.state_dict())
        assert not torch.equal(nr.select(x).sort(1)[0], nr.select(y).sort(1)[0])
        assert torch.equal(nr(x, y), nr(x))
        assert torch.equal(fr(x, y), nr.score_at(x, nr.select(y)))
        assert not torch.equal(fr(x, y), nr(x))
        assert torch.equal(fr(y, y), nr(y)), "equal images: same boxes, same features"

    @pytest.mark.parametrize("name", ["biqa4k", "biqa4k-fr"])
    def test_gradient_stays_inside_the_chosen_patches(self, name, images):
        critic = build_small(name).double()
        x, y = images
        chosen = critic.select(y if name == "biqa4k-fr" else x)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x, y if name == "biqa4k-fr" else None).sum(), x)
        for number, boxes in enumerate(chosen.tolist()):
            for top, left in boxes:
                patch = gradient[number, :, top : top + 32, left : left + 32]
                assert patch.any()
                patch.zero_()
        assert not gradient.any()

    def test_no_restorer_can_move_the_choice_of_the_reference(self, fr, images):
        """Making the image flat where the reference is textured changes the score, not the place."""
        x, y = images
        seen: list[Tensor] = []
        original = fr.score_at
        fr.score_at = lambda image, boxes: seen.append(boxes) or original(image, boxes)
        fr(x, y)
        fr(torch.zeros_like(x), y)
        assert torch.equal(seen[0], seen[1])
        assert torch.equal(seen[0], fr.select(y))


class TestLoss:
    def test_anchored_loss_is_zero_at_the_reference(self, fr, images):
        _, y = images
        loss_fn = CriticLoss([{"critic": fr, "weight": 1.0}])
        assert loss_fn(y.clone(), y).item() == 0

    def test_anchored_loss_compares_scores_at_the_references_patches(self, fr, images):
        x, y = images
        boxes = fr.select(y)
        expected = torch.relu(fr.score_at(y, boxes) - fr.score_at(x, boxes)).mean()
        assert expected > 0
        torch.testing.assert_close(CriticLoss([{"critic": fr, "weight": 1.0}])(x, y), expected)

    @pytest.mark.parametrize("grad", ["autograd", "checkpoint", "fused"])
    def test_every_mode_on_images_with_several_cells(self, nr, images, grad):
        x, y = images
        x.requires_grad_()
        loss_fn = CriticLoss([{"critic": nr, "weight": 1.0, "shape": "softplus"}], grad=grad, micro_batch=1)
        (gradient,) = torch.autograd.grad(loss_fn(x, y), x)
        expected = torch.nn.functional.softplus(nr(y) - nr.score_at(x, nr.select(y))).mean()
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])

    @pytest.mark.parametrize("shape", ["softplus", "sigmoid"])
    def test_the_output_chooses_nothing_where_there_are_references(self, nr, images, shape):
        """The gradient lies in the patches of the reference, also for a shape that asks nothing of it."""
        x, y = images
        loss_fn = CriticLoss([{"critic": nr, "weight": 1.0, "shape": shape}])
        assert not torch.equal(nr.select(x).sort(1)[0], nr.select(y).sort(1)[0])
        _, gradient = loss_fn.value_and_gradient(x, y)
        assert gradient.any()
        for number, boxes in enumerate(nr.select(y).tolist()):
            for top, left in boxes:
                gradient[number, :, top : top + 32, left : left + 32] = 0
        assert not gradient.any()
        alone = CriticLoss([{"critic": nr, "weight": 1.0, "shape": "sigmoid"}])
        assert float(alone(x)) == pytest.approx(float((-nr(x)).sigmoid().mean()))

    def test_not_a_number_is_skipped_and_does_not_break_the_choice(self, nr, images):
        x, y = images
        broken = torch.full_like(x, float("nan"))
        assert nr.select(broken).tolist() == [[[0, 0], [0, 32], [0, 64]]] * 2
        loss_fn = CriticLoss([{"critic": nr, "weight": 1.0}])
        assert torch.isfinite(loss_fn(broken.requires_grad_(), y))
        assert loss_fn.report["biqa4k"]["skipped"] == 1


class TestNativeHead:
    def test_is_the_mean_of_log_odds(self, nr, images):
        x, _ = images
        boxes = nr.select(x)
        vectors = nr.vectors(nr.trunk(crops(x, boxes, 32), nr.taps))
        share = nr.native(vectors).softmax(1)[:, 1]
        torch.testing.assert_close(nr.native_logit(x), torch.logit(share).view(2, 3).mean(1))
        assert torch.equal(nr.native_logit(x), nr.native_logit(x, boxes))

    def test_reads_the_references_patches_if_given(self, fr, images):
        x, y = images
        boxes = fr.select(y)
        assert not torch.equal(fr.native_logit(x, boxes), fr.native_logit(x))

    def test_is_apart_from_the_quality(self, nr, images):
        x, _ = images
        score = nr(x)
        for parameter in nr.native.parameters():
            parameter.add_(1)
        assert torch.equal(nr(x), score)
        nr.unfreeze()
        nr.native_logit(x.requires_grad_()).sum().backward()
        assert all(p.grad is not None for p in nr.native.parameters())
        assert all(p.grad is None for p in nr.quality.parameters())
        assert x.grad.any()

    def test_has_a_slope_however_sure_it_is(self, nr, images):
        x, _ = images
        nr.native[-1].bias.copy_(torch.tensor([80.0, 0.0]))  # certainly upscaled
        x.requires_grad_()
        logit = nr.native_logit(x)
        (pull,) = torch.autograd.grad(torch.nn.functional.softplus(-logit).sum(), x, retain_graph=True)
        (odds,) = torch.autograd.grad(-logit.sum(), x)
        torch.testing.assert_close(pull, odds)

    def test_checks_its_images(self, nr):
        with pytest.raises(InputError, match=r"x in \[0, 1\]"):
            nr.native_logit(2 * torch.ones(1, 3, 64, 64))


class TestPublishedSize:
    @pytest.fixture(scope="class")
    def full(self) -> BIQA4K:
        return BIQA4K(get_card("biqa4k")).freeze().to("meta")

    def test_parameters(self, full):
        descriptors = (512, 1024, 2048, 4096)
        assert parameters(full.trunk) == 23_508_032
        assert parameters(full.project) == sum(descriptors) * 128 + 4 * 128
        assert parameters(full.quality) == 512 * 128 + 128 + 128 + 1
        assert parameters(full.native) == 512 * 128 + 128 + 2 * 128 + 2

    def test_shapes_of_a_patch(self, full):
        taps = full.trunk(torch.empty(3, 3, 256, 256, device="meta"), full.taps)
        assert [taps[t].shape[1:] for t in full.taps] == [(256, 64, 64), (512, 32, 32), (1024, 16, 16), (2048, 8, 8)]
        assert full.vectors(taps).shape == (3, 512)

    def test_smaller_images_are_refused(self):
        with pytest.raises(InputError, match="at least 256x256"):
            BIQA4K(get_card("biqa4k"), **(SIZES | {"side": 256})).freeze()(photographs(255))


class TestCheckpoints:
    def test_torchvisions_trunk_and_a_head_make_either(self, nr, images):
        state = nr.state_dict()
        trunk = {key.removeprefix("trunk."): t for key, t in state.items() if key.startswith("trunk.")}
        head = {key: t for key, t in state.items() if not key.startswith("trunk.")}
        extra = {"fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1), "bn1.num_batches_tracked": torch.tensor(0)}
        other = BIQA4KFR(small_card("biqa4k-fr", 32), **SIZES).double()
        load_states(other, [{**trunk, **extra}, head])
        _, y = images
        assert torch.equal(other.freeze()(y, y), nr(y))
        with pytest.raises(WeightsError, match="in no file"):
            load_states(other, [trunk])
