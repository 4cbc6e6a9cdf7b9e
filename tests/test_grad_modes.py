"""Every grad mode gives the loss and gradient of plain autograd, for every critic and in every training set-up."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
import toys
from images import pair
from small import PACKAGES
from test_contract import images
from torch import Tensor, nn

from perceptloss import CriticLoss, create_critic
from perceptloss.critic import Critic
from perceptloss.errors import GradientError, InputError

MODES: dict[str, dict[str, Any]] = {
    "checkpoint": {"grad": "checkpoint"},
    "fused, one by one": {"grad": "fused", "micro_batch": 1},
    "fused, uneven": {"grad": "fused", "micro_batch": 2},
    "fused, whole batch": {"grad": "fused", "micro_batch": None},
    "fused, lean": {"grad": "fused", "micro_batch": 2, "lean": True},
    "autograd, lean": {"grad": "autograd", "lean": True},
}
TERMS = {"ssim": 0.3, "lpips-squeeze": {"weight": 1.0, "weights": None}}


def loss_of(critic: Critic, precision: str = "fp32", **options: Any) -> CriticLoss:
    term: dict[str, Any] = {"critic": critic, "weight": 0.7, "precision": precision}
    if critic.card.shape == "hinge":  # whose slope may be 0 for a head that has not learned
        term["shape"] = "softplus"
    return CriticLoss([term], share_every=0, **options)


def value_and_gradient(loss_fn: CriticLoss, x: Tensor, y: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    value = loss_fn(x, y)
    (gradient,) = torch.autograd.grad(value * scale, x)
    return value.detach(), gradient


def agree(ours: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], rtol: float = 1e-9) -> None:
    """Values to `rtol`, gradients to `rtol` of their largest element."""
    torch.testing.assert_close(ours[0], expected[0], rtol=rtol, atol=1e-12)
    scale = expected[1].abs().max().item()
    torch.testing.assert_close(ours[1], expected[1], rtol=rtol, atol=rtol * scale)


def restorer(seed: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1), nn.Sigmoid())


def flat_gradient(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in net.parameters()])


class TestEveryCritic:
    def test_all_modes_agree_in_float64(self, critic64):
        x, y = images(critic64, 3, torch.float64)
        rtol = 1e-4 if critic64.card.name in PACKAGES else 1e-9
        expected = value_and_gradient(loss_of(critic64, grad="autograd"), x, y)
        assert expected[1].abs().max() > 0
        for name, options in MODES.items():
            try:
                agree(value_and_gradient(loss_of(critic64, **options), x, y), expected, rtol)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None

    def test_memory_layout_of_x_does_not_matter(self, critic64):
        x, y = images(critic64, 2, torch.float64)
        loss_fn = loss_of(critic64, micro_batch=1)
        expected = value_and_gradient(loss_fn, x, y)
        wide = x.new_zeros(*x.shape[:2], x.shape[2], 2 * x.shape[3])
        strided = wide[..., ::2].copy_(x)
        for image in (x.contiguous(memory_format=torch.channels_last), strided):
            agree(value_and_gradient(loss_fn, image, y), expected)

    @pytest.mark.parametrize("grad", ["autograd", "fused"])
    def test_autocast_around_the_loss(self, critic, grad):
        """Nothing changes for fp32 images; bf16 images, as autocast makes them, are judged exactly."""
        x, y = images(critic, 2)
        loss_fn = loss_of(critic, grad=grad)
        low = x.bfloat16()
        expected, rounded = value_and_gradient(loss_fn, x, y), value_and_gradient(loss_fn, low.float(), y)
        leaf, low_leaf = x.clone().requires_grad_(), low.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value, low_value = loss_fn(leaf, y), loss_fn(low_leaf, y)
        value.backward()
        low_value.backward()
        assert torch.equal(value, expected[0])
        assert torch.equal(leaf.grad, expected[1])
        assert low_value.dtype == torch.float32
        assert low_leaf.grad.dtype == torch.bfloat16
        torch.testing.assert_close(low_value, rounded[0])
        smallest = 1e-6 * rounded[1].abs().max().item()
        torch.testing.assert_close(low_leaf.grad.float(), rounded[1], rtol=2**-7, atol=smallest)

    def test_bf16_trunk_stays_close(self, critic):
        if not critic.card.low_precision:
            pytest.skip("the card allows fp32 only")
        x, y = images(critic, 2)
        expected = value_and_gradient(loss_of(critic), x, y)
        low = loss_of(copy.deepcopy(critic), precision="bf16")
        value, gradient = value_and_gradient(low, x, y)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[0], rtol=0.1, atol=0.01)
        cosine = nn.functional.cosine_similarity(gradient.flatten(), expected[1].flatten(), dim=0)
        assert cosine > 0.8, f"cosine {cosine:.3f} between the gradients in bf16 and fp32"
        assert 0.7 < gradient.norm() / expected[1].norm() < 1.4

    def test_second_derivatives(self, critic64):
        """`autograd` gives them; `fused` says that it does not."""
        x, y = images(critic64, 1, torch.float64)
        x.requires_grad_()
        (first,) = torch.autograd.grad(loss_of(critic64, grad="autograd")(x, y), x, create_graph=True)
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=x.dtype)
        (second,) = torch.autograd.grad((first * along).sum(), x, allow_unused=True)
        assert second is None or torch.isfinite(second).all()
        with pytest.raises(GradientError, match=r"create_graph=True.*autograd"):
            torch.autograd.grad(loss_of(critic64, grad="fused")(x, y), x, create_graph=True)


@pytest.fixture(params=["autograd", "checkpoint", "fused"])
def grad(request):
    return request.param


class TestTraining:
    def test_x_without_gradient_and_no_grad(self, grad):
        x, y = pair(2, 40)
        loss_fn = CriticLoss(TERMS, grad=grad)
        expected, _ = value_and_gradient(loss_fn, x, y)
        plain = loss_fn(x, y)
        with torch.no_grad():
            silent = loss_fn(x.clone().requires_grad_(), y)
        for value in (plain, silent):
            assert not value.requires_grad
            torch.testing.assert_close(value, expected)

    def test_restorer_gets_the_same_gradient(self, grad):
        x, y = pair(3, 40)
        gradients = []
        for mode in ("autograd", grad):
            net = restorer()
            (nn.functional.l1_loss(net(x), y) + CriticLoss(TERMS, grad=mode, micro_batch=2)(net(x), y)).backward()
            gradients.append(flat_gradient(net))
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)

    def test_accumulation_is_the_large_batch(self, grad):
        x, y = pair(4, 40, dtype=torch.float64)
        loss_fn = CriticLoss(TERMS, grad=grad, micro_batch=2).double()
        whole, parts = restorer().double(), restorer().double()
        loss_fn(whole(x), y).backward()
        for half in (slice(0, 2), slice(2, 4)):
            (loss_fn(parts(x[half]), y[half]) / 2).backward()
        torch.testing.assert_close(flat_gradient(parts), flat_gradient(whole), rtol=1e-9, atol=1e-14)

    def test_backward_twice_and_sums_of_losses(self, grad):
        x, y = pair(2, 40)
        x.requires_grad_()
        loss_fn = CriticLoss(TERMS, grad=grad)
        value = loss_fn(x, y)
        once = torch.autograd.grad(value, x, retain_graph=True)[0]
        twice = torch.autograd.grad(value, x)[0]
        assert torch.equal(once, twice)
        total = loss_fn(x, y) * 2 + 3 * loss_fn(x, y) + x.mean()
        torch.testing.assert_close(torch.autograd.grad(total, x)[0], 5 * once + 1 / x.numel())

    def test_fp16_images_survive_with_a_loss_scale(self, grad):
        """Pixel gradients of about 1e-8 vanish in fp16 unless they are kept scaled until the loss scale arrives."""
        x, y = pair(2, 64)
        x = x.half()
        loss_fn = CriticLoss({"ssim": 1e-3}, grad=grad)
        _, expected = value_and_gradient(loss_fn, x.float(), y)
        assert expected.abs().median() < torch.finfo(torch.float16).tiny
        _, gradient = value_and_gradient(loss_fn, x, y, scale=65536.0)
        assert gradient.dtype == torch.float16
        smallest = 2**-11 * expected.abs().max().item()
        torch.testing.assert_close(gradient.float() / 65536, expected, rtol=2**-9, atol=smallest)

    def test_precision_of_x_decides_the_type_of_its_gradient_only(self, grad):
        x, y = pair(2, 40)
        loss_fn = CriticLoss(TERMS, grad=grad)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            value, gradient = value_and_gradient(loss_fn, x.to(dtype), y.to(dtype))
            assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
        with pytest.raises(InputError, match="float64"):
            loss_fn(x.double(), y.double())

    def test_after_a_compiled_restorer(self, grad):
        torch._dynamo.reset()
        x, y = pair(2, 40)
        plain, compiled = restorer(), restorer()
        loss_fn = CriticLoss(TERMS, grad=grad, micro_batch=1)
        loss_fn(plain(x), y).backward()
        backend = "inductor" if grad == "fused" and shutil.which("g++") else "aot_eager"
        loss_fn(torch.compile(compiled, backend=backend)(x), y).backward()
        torch.testing.assert_close(flat_gradient(compiled), flat_gradient(plain), rtol=1e-4, atol=1e-6)

    def test_inside_a_compiled_step(self, grad):
        torch._dynamo.reset()
        x, y = pair(2, 40)
        plain, compiled = restorer(), restorer()
        loss_fn = CriticLoss(TERMS if grad == "fused" else {"ssim": 1.0}, grad=grad, micro_batch=1)

        @torch.compile(backend="aot_eager")
        def step(images: Tensor, references: Tensor) -> Tensor:
            restored = compiled(images)
            return nn.functional.l1_loss(restored, references) + loss_fn(restored, references)

        restored = plain(x)
        (nn.functional.l1_loss(restored, y) + loss_fn(restored, y)).backward()
        for _ in range(2):
            compiled.zero_grad()
            step(x, y).backward()
            torch.testing.assert_close(flat_gradient(compiled), flat_gradient(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((16, 96, 96), [8, 8]), ((3, 64, 64), [3]), ((3, 600, 400), [1, 1, 1]), ((5, 256, 256), [2, 2, 1])],
)
def test_groups_have_about_as_many_pixels(shape, wanted):
    seen = []
    watching = toys.toy("watching", lambda x, y: seen.append(len(x)) or x.mean((1, 2, 3)), shape="sigmoid")
    n, height, width = shape
    x = torch.zeros(n, 3, height, width, requires_grad=True)
    CriticLoss([toys.term(watching)], share_every=0)(x, torch.zeros_like(x))
    assert seen == wanted


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_terms_that_couple_the_batch_are_never_split(micro_batch):
    """A spread over the batch is zero image by image; beside it, other terms are still split."""
    spread = toys.toy(
        "spread", lambda x, y: (x.mean((1, 2, 3)) - x.mean()).square(), couples_batch=True, shape="sigmoid"
    )
    x, y = pair(3, 16, dtype=torch.float64)
    terms = [toys.term(spread), toys.term(toys.difference())]
    expected = value_and_gradient(CriticLoss(terms, grad="autograd"), x, y)
    agree(value_and_gradient(CriticLoss(terms, micro_batch=micro_batch), x, y), expected)


def test_data_parallel_gradients(tmp_path):
    """Two processes: gradients averaged over ranks are those of the whole batch, in every mode."""
    import ddp_worker

    torch.multiprocessing.spawn(ddp_worker.run, args=(2, str(tmp_path)), nprocs=2)
    x, y = ddp_worker.data()
    net = ddp_worker.restorer()
    ddp_worker.loss(create_critic("lpips-squeeze", weights=None), "autograd")(net(x), y).backward()
    expected = flat_gradient(net)
    for mode in ("autograd", "checkpoint", "fused"):
        ranks = [torch.load(tmp_path / f"{mode}-{rank}.pt", weights_only=True) for rank in range(2)]
        assert torch.equal(ranks[0], ranks[1])
        torch.testing.assert_close(ranks[0], expected, rtol=1e-4, atol=1e-6)
