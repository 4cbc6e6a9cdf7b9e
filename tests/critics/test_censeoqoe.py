"""CenseoQoE: channel order, clips, the logit that losses read, and how the critic with a reference starts."""

from __future__ import annotations

import pytest
import torch
from images import pair
from small import build_small
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic, get_card
from perceptloss.critics.censeoqoe import CenseoQoE, CenseoQoEFR, CenseoQoENR
from perceptloss.errors import InputError, WeightsError
from perceptloss.networks.trunks import ResNet
from perceptloss.weights.convert import load_states

WIDTHS = (8, 10, 12, 16)


@pytest.fixture
def nr() -> CenseoQoENR:
    built = build_small("censeoqoe-nr").double()
    assert isinstance(built, CenseoQoENR)
    return spread(built)


@pytest.fixture
def fr() -> CenseoQoEFR:
    built = build_small("censeoqoe-fr").double()
    assert isinstance(built, CenseoQoEFR)
    return spread(built)


def spread(critic: CenseoQoE) -> CenseoQoE:
    """Make the scores of images differ much."""
    with torch.no_grad():
        critic.head[2].weight.mul_(20)
    return critic


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return pair(3, 64, 96, dtype=torch.float64)


def judge(critic: CenseoQoE, x: Tensor, y: Tensor) -> Tensor:
    return critic(x, y if critic.card.needs_reference else None)


def judge_clips(critic: CenseoQoE, x: Tensor, y: Tensor) -> Tensor:
    return critic.score_clip(x, y if critic.card.needs_reference else None)


@pytest.fixture(params=["nr", "fr"])
def either(request) -> CenseoQoE:
    return request.getfixturevalue(request.param)


class TestScore:
    def test_is_five_times_the_sigmoid_of_the_logit(self, either, images):
        x, y = images
        score = judge(either, x, y)
        logit = either.linear(x, y if either.card.needs_reference else None)
        torch.testing.assert_close(score, 5 / (1 + torch.exp(-logit)))
        assert ((score > 0) & (score < 5)).all()
        assert score.std() > 1e-3

    def test_without_sigmoid_it_is_unbounded(self, nr, images):
        x, _ = images
        plain = CenseoQoENR(get_card("censeoqoe-nr"), sigmoid=False, widths=WIDTHS, hidden=32).double().freeze()
        plain.load_state_dict(nr.state_dict())
        assert plain.card.bounds == (float("-inf"), float("inf"))
        torch.testing.assert_close(plain(x), 5 * nr.linear(x))

    def test_the_network_sees_raw_bgr(self, nr, fr, images):
        x, y = images
        assert torch.equal(nr.prepare(x), x[:, [2, 1, 0]])
        assert torch.equal(fr.pair(x, y), torch.cat([x[:, [2, 1, 0]], (y - x)[:, [2, 1, 0]]], 1))
        seen = []
        for critic in (nr, fr):
            first = critic.trunk.conv1
            critic.trunk.maxpool.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
            judge(critic, x, y)
            fed = nr.prepare(x) if critic is nr else fr.pair(x, y)
            expected = nn.functional.conv2d(fed, first.weight, stride=2, padding=3)
            torch.testing.assert_close(seen.pop(), critic.trunk.bn1(expected).relu())

    def test_red_and_blue_are_not_the_same(self, either, images):
        x, y = images
        swapped = judge(either, x.flip(1), y.flip(1))
        assert ((swapped - judge(either, x, y)).abs() > 1e-3).all()
        with torch.no_grad():  # a network that reads the channels the other way round
            first = either.trunk.conv1
            first.weight.copy_(first.weight.unflatten(1, (-1, 3)).flip(2).flatten(1, 2))
        torch.testing.assert_close(judge(either, x, y), swapped)

    def test_equal_images_leave_the_last_three_channels_empty(self, fr, images):
        x, _ = images
        assert not fr.pair(x, x)[:, 3:].any()
        before = fr(x, x)
        with torch.no_grad():
            fr.trunk.conv1.weight[:, 3:] += 1
        torch.testing.assert_close(fr(x, x), before)
        assert ((fr(x, images[1]) - before).abs() > 1e-3).all()

    def test_mirrored_images_score_nearly_the_same_for_mirrored_kernels(self, nr):
        """Strides sample even widths off their middle; with 2^5 k + 1 columns they do not."""
        with torch.no_grad():
            for module in nr.trunk.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
        exact, rough = (
            (nr.linear(x.flip(3)) - nr.linear(x)).abs().max().item()
            for x in (pair(2, 64, width, dtype=torch.float64)[0] for width in (97, 96))
        )
        assert exact < 1e-9 < 1e-6 < rough < 0.5


class TestClips:
    def clips(self, images: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Two clips of three frames and their references."""
        x, y = images
        order = torch.tensor([[0, 1, 2], [1, 1, 0]])
        return x[order], y[order]

    def test_score_is_the_mean_of_the_frames(self, either, images):
        frames, references = self.clips(images)
        alone = judge(either, *images)
        expected = torch.stack([alone.mean(), (2 * alone[1] + alone[0]) / 3])
        torch.testing.assert_close(judge_clips(either, frames, references), expected)

    def test_order_and_repetition_do_not_count(self, either, images):
        frames, references = self.clips(images)
        score = judge_clips(either, frames, references)
        torch.testing.assert_close(judge_clips(either, frames[:, [2, 0, 1]], references[:, [2, 0, 1]]), score)
        x, y = images
        still = judge_clips(either, x[:, None].expand(-1, 4, -1, -1, -1), y[:, None].expand(-1, 4, -1, -1, -1))
        torch.testing.assert_close(still, judge(either, x, y))

    def test_every_frame_gets_its_share_of_the_gradient(self, either, images):
        x, y = (image[:2, None].expand(-1, 4, -1, -1, -1).clone() for image in images)
        (of_clip,) = torch.autograd.grad(judge_clips(either, x.requires_grad_(), y).sum(), x)
        one = x[:, 0].detach().requires_grad_()
        (of_frame,) = torch.autograd.grad(judge(either, one, y[:, 0]).sum(), one)
        torch.testing.assert_close(of_clip, (of_frame / 4)[:, None].expand_as(of_clip))

    def test_wrong_clips_are_refused(self, nr, fr, images):
        frames, references = self.clips(images)
        with pytest.raises(InputError, match=r"\(N, T, 3, H, W\), got \(3, 3, 64, 96\)"):
            nr.score_clip(images[0])
        with pytest.raises(InputError, match=r"got \(2, 0, 3, 64, 96\)"):
            nr.score_clip(frames[:, :0])
        with pytest.raises(InputError, match=r"one shape.*\(2, 3, 3, 64, 96\) and \(2, 1, 3, 64, 96\)"):
            fr.score_clip(frames, references[:, :1])
        with pytest.raises(InputError, match="compares with a reference"):
            fr.score_clip(frames)
        with pytest.raises(InputError, match=r"needs x in \[0, 1\]"):
            nr.score_clip(255 * frames)


class TestLoss:
    def test_reads_the_logit_where_the_sigmoid_is_flat(self, either, images):
        with torch.no_grad():
            either.head[2].bias -= 60
        x, y = images[0][:1].requires_grad_(), images[0][1:2]
        (flat,) = torch.autograd.grad(judge(either, x, y).sum(), x)
        assert flat.norm() < 1e-12
        loss = CriticLoss([{"critic": either, "weight": 1.0, "shape": "softplus"}])
        (gradient,) = torch.autograd.grad(loss(x, y), x)
        assert gradient.norm() > 1e-3


class TestStart:
    def test_scores_are_those_without_reference(self, nr, fr, images):
        x, y = images
        assert not torch.allclose(fr(x, y), nr(x))
        assert fr.start_from(nr) is fr
        torch.testing.assert_close(fr(x, y), nr(x))
        assert torch.equal(fr(x, y), fr(x, y.roll(1, 0)))
        assert fr.weights_id not in ("none", "random")

    def test_then_it_learns_the_reference_and_leaves_its_origin_alone(self, nr, fr, images):
        x, y = images
        before = nr(x)
        fr.start_from(nr).unfreeze()
        fr(x, y).sum().backward()
        assert fr.trunk.conv1.weight.grad[:, 3:].norm() > 0
        with torch.no_grad():
            for parameter in fr.parameters():
                parameter -= 1e-4 * parameter.grad
        assert ((fr(x, y) - fr(x, y.roll(1, 0))).abs() > 1e-8).all()
        assert torch.equal(nr(x), before)

    def test_of_another_width_is_refused(self, fr):
        wide = CenseoQoENR(get_card("censeoqoe-nr"), widths=(8, 10, 12, 20), hidden=32)
        with pytest.raises(WeightsError, match=r"'censeoqoe-nr' does not fit(?s:.*)layer4\.0\.conv1\.weight: shape"):
            fr.start_from(wide)


class TestWeights:
    def test_parameters_are_as_many_as_published(self):
        critics = [create_critic(f"censeoqoe-{kind}", weights=None) for kind in ("nr", "fr")]
        counts = [sum(p.numel() for p in critic.parameters()) for critic in critics]
        assert counts == [11_702_849, 11_702_849 + 9_408]

    def authors_state(self, critic: CenseoQoE) -> dict[str, Tensor]:
        state = {}
        for key, tensor in critic.state_dict().items():
            first, _, rest = key.partition(".")
            state[f"backbone.{rest}" if first == "trunk" else f"head.fc_out.{rest}"] = tensor.clone()
        return state | {"backbone.layer1.0.bn1.num_batches_tracked": torch.tensor(3)}

    def test_of_the_authors_load(self, either, images):
        x, y = images
        state = self.authors_state(either)
        other = build_small(either.card.name).double()
        assert not torch.allclose(judge(other, x, y), judge(either, x, y))
        load_states(other, [state])
        torch.testing.assert_close(judge(other, x, y), judge(either, x, y))

    def test_must_fit_exactly(self, nr, fr):
        state = self.authors_state(nr)
        with pytest.raises(
            WeightsError, match=r"backbone\.conv1\.weight: shape \(8, 3, 7, 7\), expected \(8, 6, 7, 7\)"
        ):
            load_states(fr, [state])
        with pytest.raises(WeightsError, match=r"head\.fc_mu\.weight: unknown key"):
            load_states(nr, [state | {"head.fc_mu.weight": torch.ones(1)}])
        del state["head.fc_out.2.bias"]
        with pytest.raises(WeightsError, match=r"head\.2\.bias: in no file"):
            load_states(nr, [state])


class TestTrunk:
    def test_six_channels_come_without_normalisation(self):
        trunk = ResNet(18, 1, None, widths=(4,), channels=6)
        assert trunk(torch.rand(2, 6, 32, 32), ("layer1",))["layer1"].shape == (2, 4, 8, 8)
        with pytest.raises(ValueError, match="normalise=None with channels=6"):
            ResNet(18, 1, widths=(4,), channels=6)

    def test_channels_tell_trunks_apart(self):
        three, six = (ResNet(18, 1, None, widths=(4,), channels=n) for n in (3, 6))
        assert not three.same_as(six)
        assert six.same_as(ResNet(18, 1, None, widths=(4,), channels=6))
