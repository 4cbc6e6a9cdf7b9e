"""Latents are judged as what a decoder makes of them: whole and in crops, without holding its activations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import latents
from perceptloss import CriticLoss
from perceptloss.errors import ConfigError, GradientError, InputError
from perceptloss.loss.latents import LatentLoss

TERMS = {"gmsd": 1.0, "charbonnier": 0.5}


class Decoder(nn.Module):
    """Enlarges by 4, with a receptive field of one latent around each."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 48, 1)
        self.requires_grad_(False)

    def forward(self, z):
        return torch.pixel_shuffle(torch.tanh(self.out(torch.tanh(self.inner(z)))), 4)


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 12, 14, generator=generator).requires_grad_()
    return Decoder(), z, 2 * torch.rand(2, 3, 48, 56, generator=generator) - 1


@pytest.mark.parametrize("grad", ["fused", "autograd"])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_is_the_loss_of_the_decoded_images(scene, grad, checkpointed):
    decode, z, y = scene
    loss = LatentLoss(TERMS, decode, scale=4, grad=grad, checkpointed=checkpointed)
    value = loss(z, y)
    (gradient,) = torch.autograd.grad(value, z)
    wanted = CriticLoss(TERMS, input_range=(-1, 1), grad="autograd")(decode(z), y)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, z)[0], rtol=1e-4, atol=1e-8)
    again, slope = loss.value_and_gradient(z.detach(), y)
    torch.testing.assert_close((again, slope), (value.detach(), gradient))


def test_crops_move_with_the_step_and_latents_outside_get_nothing(scene):
    decode, z, y = scene
    loss = LatentLoss(TERMS, decode, scale=4, crop=6)
    places = set()
    for step in range(6):
        (gradient,) = torch.autograd.grad(loss(z, y, step=step), z)
        rows, columns = (torch.nonzero(gradient.abs().sum(dims)).flatten() for dims in ((0, 1, 3), (0, 1, 2)))
        assert max(len(rows), len(columns)) <= 6
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 2
    assert torch.equal(loss(z, y, step=3), loss(z, y, step=3))


def test_a_margin_decodes_as_if_all_were_decoded(scene):
    decode, z, _ = scene
    whole = decode(z).detach()
    with torch.no_grad():
        inside = LatentLoss({"charbonnier": 1.0}, decode, scale=4, crop=6, margin=1)(z, whole, step=1)
        at_edge = LatentLoss({"charbonnier": 1.0}, decode, scale=4, crop=6)(z, whole, step=1)
    assert float(inside) == pytest.approx(1e-6, rel=1e-3), "nothing but what charbonnier adds under its root"
    assert float(at_edge) > 1e-3


def test_the_decoders_activations_are_not_held(scene):
    decode, z, y = scene

    def held(checkpointed):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            loss = LatentLoss(TERMS, decode, scale=4, checkpointed=checkpointed)
            value = loss(z, y)
        value.backward()
        return sum(kept)

    assert held(True) < 0.7 * held(False)


def test_the_decoder_is_no_part_of_the_loss(scene):
    decode, z, y = scene
    loss = LatentLoss(TERMS, decode, scale=4)
    assert not list(loss.parameters())
    loss(z, y).backward()
    assert all(p.grad is None for p in decode.parameters())


def test_what_does_not_fit_is_refused(scene):
    decode, z, y = scene
    with pytest.raises(InputError, match=r"decode must turn latents \(2, 4, 12, 14\) into images \(2, 3, 96, 112\)"):
        LatentLoss(TERMS, decode)(z, y.repeat_interleave(2, 2).repeat_interleave(2, 3))
    with pytest.raises(InputError, match="references of 48x56 pixels"):
        LatentLoss(TERMS, decode, scale=4)(z, y[..., 4:])
    with pytest.raises(InputError, match="crops 13x13"):
        LatentLoss(TERMS, decode, scale=4, crop=13)(z, y)
    with pytest.raises(ConfigError, match="2 problems"):
        LatentLoss(TERMS, None, scale=0)


def test_a_decoder_that_sends_no_gradient_is_named(scene):
    decode, z, y = scene
    with pytest.raises(GradientError, match="decode gave images without a gradient"):
        LatentLoss(TERMS, torch.no_grad()(decode.forward), scale=4)(z, y)
    with torch.no_grad():
        LatentLoss(TERMS, torch.no_grad()(decode.forward), scale=4)(z, y)
    with pytest.raises(InputError, match="got ndarray"):
        LatentLoss(TERMS, decode, scale=4)(z, y.numpy())


def test_joint_critics_learn_from_decoded_crops():
    decode = nn.ConvTranspose2d(4, 3, 8, stride=8).requires_grad_(False)
    critics = {"patch": {"weight": 0.1, "weights": None, "joint": {"mix": False}}}
    loss = LatentLoss(critics, decode, crop=8, margin=1)
    z, y = torch.randn(2, 4, 10, 12, requires_grad=True), 2 * torch.rand(2, 3, 80, 96) - 1
    assert "rank" in loss.learn(z, y, step=0)["patch"]
    assert z.grad is None


@pytest.mark.thorough
def test_the_benchmark_counts_what_is_held():
    rows = {row.label: row for row in latents.measure((1, 128, 128), torch.device("cpu"))}
    kept, whole, half, quarter = (rows[label] for label in latents.WAYS)
    assert whole.memory.held < kept.memory.held / 20
    assert quarter.memory.peak < half.memory.peak <= whole.memory.peak
    assert kept.operations < whole.operations, "the decoder runs once more"
    assert len(list(latents.render(rows.values()))) == 2 + len(latents.WAYS)
