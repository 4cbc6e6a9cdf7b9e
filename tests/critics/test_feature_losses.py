"""Losses on features: known answers, and what each reads of a published file."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs
from small import build_small

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.contextual import Contextual, contextual
from perceptloss.critics.ea_dists import edges
from perceptloss.critics.fdl import FDL, amplitude_and_phase
from perceptloss.critics.perceptual import distribution_distance
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.registry import get_card

TOKENS = {"embed_dim": 32, "depth": 3, "num_heads": 2}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestEdgeAwareDISTS:
    def test_is_dists_twice(self):
        x, y = pair(2, 48)
        dists, critic = (create_critic(name, weights=None) for name in ("dists", "ea-dists"))
        critic.load_state_dict(dists.state_dict())
        torch.testing.assert_close(critic(x, y), dists(x, y) + dists.score(edges(x), edges(y)))

    def test_edges_are_the_size_of_sobels_gradient(self):
        image = random(1, 3, 9, 11)
        kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
        grey = torch.einsum("nchw,c->nhw", image, torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64))[:, None]
        right, down = (F.conv2d(grey, k[None, None], padding=1) for k in (kernel, kernel.T))
        torch.testing.assert_close(edges(image), (right**2 + down**2 + 1e-6).sqrt().expand(-1, 3, -1, -1))

    def test_shares_the_trunk_of_dists_in_one_loss(self):
        loss = CriticLoss({name: {"weight": 1.0, "weights": None} for name in ("dists", "ea-dists")})
        first, second = (term.critic for term in loss.terms)
        assert first.trunk is second.trunk


@pytest.mark.parametrize("name", ["dists", "ea-dists", "aipq-dists"])
def test_equal_images_are_exactly_alike(name):
    critic = create_critic(name, weights=None)
    y = torch.cat([photographs(48)[:1], torch.full((1, 3, 48, 48), 0.5)])
    assert critic(y.clone(), y).tolist() == [0.0, 0.0]


class TestContextual:
    def test_a_permutation_costs_nothing_and_a_stranger_does(self):
        fy = F.normalize(torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(0)), dim=1)
        shuffled = fy[..., torch.randperm(20, generator=torch.Generator().manual_seed(1))]
        assert float(contextual(shuffled, fy, 0.1)) < 1e-4
        stranger = F.normalize(torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(2)), dim=1)
        assert float(contextual(stranger, fy, 0.1)) > 0.3

    def test_is_the_formula_of_the_paper(self):
        fx, fy = F.normalize(random(1, 5, 6), dim=1), F.normalize(random(1, 5, 7, seed=1), dim=1)
        d = (1 - torch.einsum("ncp,ncq->pq", fx, fy)) / 2
        w = ((1 - d / (d.min(1, keepdim=True).values + 1e-5)) / 0.5).exp()
        wanted = -(w / w.sum(1, keepdim=True)).max(0).values.mean().log()
        torch.testing.assert_close(contextual(fx, fy, 0.5), wanted[None])

    def test_flat_features_score_the_log_of_their_number(self):
        flat = torch.ones(1, 4, 9) / 2
        assert float(contextual(flat, flat, 0.5)) == pytest.approx(math.log(9), abs=1e-5)

    @pytest.mark.parametrize("kind", ["cosine", "l1", "l2"])
    def test_distances_of_all_kinds_find_the_match(self, kind):
        f = F.normalize(random(1, 6, 12), dim=1)
        assert float(contextual(f, f, 0.05, kind)) < 1e-6

    def test_large_maps_are_thinned_alike(self):
        critic = Contextual(get_card("contextual"), positions=16, widths=(4, 4, 4, 4, 4)).freeze()
        places = critic._places(torch.arange(100.0)[None, None])
        assert places.shape == (1, 1, 16)
        assert torch.equal(places, critic._places(torch.arange(100.0)[None, None]))
        y = photographs(64)
        assert (critic(y, y) < critic(F.avg_pool2d(y, 5, 1, 2), y)).all()

    def test_the_mean_of_a_batch_couples_it(self):
        x, y = pair(2, 32)
        alone = Contextual(get_card("contextual"), widths=(4, 4, 4, 4, 4)).freeze()
        coupled = Contextual(get_card("contextual"), batch_mean=True, widths=(4, 4, 4, 4, 4)).freeze()
        coupled.load_state_dict(alone.state_dict())
        assert coupled.card.couples_batch
        torch.testing.assert_close(coupled(x[:1], y[:1]), alone(x[:1], y[:1]))
        assert not torch.allclose(coupled(x, y), alone(x, y))

    def test_refuses_what_vgg_has_not(self):
        with pytest.raises(ConfigError, match="conv9_1"):
            create_critic("contextual", weights=None, options={"layers": {"conv9_1": 1.0}, "distance": "l1"})


class TestFDL:
    def test_is_the_formula_of_its_authors(self):
        critic = FDL(get_card("fdl"), num_proj=3, phase_weight=0.5, widths=(4, 5, 6, 7, 8)).freeze().double()
        x, y = (image.double() for image in pair(2, 80))
        wanted = torch.zeros(2, dtype=torch.float64)
        fx, fy = critic.look(x), critic.look(y)
        for tap in critic.taps:
            directions = getattr(critic, f"projections_{tap}")
            for part, weight in ((torch.abs, 1.0), (torch.angle, 0.5)):
                sets = [F.conv2d(part(torch.fft.fftn(f[tap], dim=(2, 3))), directions).flatten(2) for f in (fx, fy)]
                wanted += weight * (sets[0].sort().values - sets[1].sort().values).abs().mean((1, 2))
        # rounding decides there between pi and -pi for coefficients without an imaginary part
        torch.testing.assert_close(critic(x, y), wanted, rtol=1e-2, atol=0)

    def test_is_that_of_its_authors_package(self, monkeypatch):
        """Which asks for a GPU while it is imported, and for torchvision's weights; both are kept from it here."""
        models = pytest.importorskip("torchvision.models")
        build = models.vgg19

        def random_vgg19(**_):
            with torch.device("meta"):  # the classifier is nine tenths of it
                network = build(weights=None, init_weights=False)
            features = network.features.to_empty(device="cpu")
            for layer in features:
                if isinstance(layer, torch.nn.Conv2d):
                    torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    torch.nn.init.constant_(layer.bias, 0.01)
            return network

        monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
        monkeypatch.setattr(models, "vgg19", random_vgg19)
        theirs = pytest.importorskip("FDL_pytorch").FDL_loss(num_proj=3)
        stages = [stage for name, stage in theirs.model.named_children() if name.startswith("stage")]
        published = {f"features.{key}": value for stage in stages for key, value in stage.state_dict().items()}
        ours = create_critic("fdl", published, options={"num_proj": 3})
        for place, tap in enumerate(ours.taps):
            setattr(theirs, f"rand_{place}", getattr(ours, f"projections_{tap}"))
        x, y = pair(1, 80)
        # rounding decides there between pi and -pi for phases of coefficients without an imaginary part
        for phase_weight, error, alike in ((0.0, 1e-5, 0.99999), (0.5, 3e-3, 0.98)):
            ours.phase_weight = theirs.phase_weight = phase_weight
            leaf = x.clone().requires_grad_()
            values = [loss(leaf, y).sum() for loss in (ours, theirs)]
            torch.testing.assert_close(*values, rtol=error, atol=0)
            slopes = [torch.autograd.grad(value, leaf)[0].flatten() for value in values]
            assert torch.cosine_similarity(*slopes, dim=0) > alike

    def test_of_dino_is_that_of_normed_tokens_of_mirrored_images(self):
        """As neosr pads: on both sides; and as DINOv2 gives its layers: behind the last norm."""
        timm = pytest.importorskip("timm")
        critic = build_small("fdl-dino")
        model = timm.create_model("vit_base_patch14_dinov2", pretrained=False, dynamic_img_size=True, **TOKENS).eval()
        with torch.no_grad():
            critic.trunk.model.norm.weight.mul_(torch.linspace(0.5, 1.5, 32))
        model.load_state_dict(critic.trunk.model.state_dict(), strict=False)
        x, y = pair(1, 50, 61)
        layers = [
            model.get_intermediate_layers(F.pad(image, (4, 5, 3, 3), mode="reflect"), n=[0, 2], reshape=True, norm=True)
            for image in (x, y)
        ]
        wanted = 0.0
        for tap, scale, fx, fy in zip(critic.taps, (1.0, 0.5), *layers, strict=True):
            directions = getattr(critic, f"projections_{tap}")
            for part, fields in zip((scale, 1.0), zip(*map(amplitude_and_phase, (fx, fy)), strict=True), strict=True):
                sets = [F.conv2d(field, directions).flatten(2).sort().values for field in fields]
                wanted += part * (sets[0] - sets[1]).abs().mean()
        assert critic(x, y).item() == pytest.approx(wanted.item(), rel=1e-4)

    def test_depths_and_their_scales_go_together(self):
        options = {"depths": [2, 1], "scales": [1.0]}
        with pytest.raises(ConfigError, match=r"(?s)scales must be 2 numbers.*depths must be numbers from 0, rising"):
            create_critic("fdl-dino", weights=None, options=options)
        with pytest.raises(ConfigError, match=r"(?s)scales must be 0 numbers.*depths must be numbers"):
            create_critic("fdl-dino", weights=None, options={"depths": [], "scales": []})

    def test_phase_turns_with_a_shift_and_the_amplitude_stays(self):
        f = random(1, 2, 8, 8)
        (amplitude, phase), (same, turned) = (amplitude_and_phase(g) for g in (f, f.roll(1, -1)))
        torch.testing.assert_close(amplitude, same)
        turn = (phase - turned) % (2 * torch.pi)
        assert turn[0, 0, 1, 2].item() == pytest.approx(2 * torch.pi * 2 / 8)

    def test_flat_features_have_no_phase(self):
        flat = torch.full((1, 2, 6, 6), 0.3).requires_grad_()
        amplitude, phase = amplitude_and_phase(flat)
        assert (phase == 0).all()
        (amplitude.sum() + phase.sum()).backward()
        assert torch.isfinite(flat.grad).all()

    def test_projections_are_the_same_each_time_and_of_unit_length(self):
        first, second = (build_small("fdl") for _ in range(2))
        for tap in first.taps:
            ours = getattr(first, f"projections_{tap}")
            assert torch.equal(ours, getattr(second, f"projections_{tap}"))
            torch.testing.assert_close(ours.flatten(1).norm(dim=1), torch.ones(len(ours)))

    def test_taps_have_weights_and_may_be_left_out(self):
        x, y = pair(1, 80)
        parts = [
            create_critic("fdl", None, options={"num_proj": 3, "layers": layers})(x, y)
            for layers in ({"relu1_2": 1.0}, {"relu1_2": 2.0}, {"relu1_2": 0.0, "relu2_2": 0.5}, {"relu2_2": 0.5})
        ]
        torch.testing.assert_close(parts[1], 2 * parts[0])
        assert parts[2] > 0
        everywhere = create_critic("fdl", None, options={"num_proj": 3})
        assert everywhere.taps == ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
        backwards = create_critic("fdl", None, options={"num_proj": 3, "layers": {"relu2_2": 1.0, "relu1_2": 1.0}})
        assert backwards.taps == ("relu1_2", "relu2_2")

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"layers": {"relu3_3": 1.0}}, "names 'relu3_3': known are relu1_2"),
            ({"layers": {"relu1_2": -1.0}}, "options.layers must be"),
            ({"layers": {}}, "options.layers must"),
            ({"border": "mirror"}, "'zeros' or 'replicate', got 'mirror'"),
            ({"scales": [1.0, 1.0], "layers": {"relu1_2": 1.0}}, "options.scales must be 1 numbers"),
        ],
    )
    def test_refuses_other_taps(self, options, sentence):
        with pytest.raises(ConfigError, match=sentence):
            create_critic("fdl", None, options=options)


class TestDistributionsOfPositions:
    def test_counts_positions_over_which_a_channel_is_carried(self):
        x, y = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
        x[:, :, 0, 1], y[:, :, 2, 3] = 7.0, 0.1  # 1 and 13, rows one after another; sizes do not matter
        torch.testing.assert_close(distribution_distance(x, y), torch.tensor([12.0, 12.0]))

    def test_a_faint_channel_has_no_steep_slope(self):
        x = torch.rand(1, 2, 8, 8, dtype=torch.float64)
        x[:, 1] *= 1e-9
        leaf = x.requires_grad_()
        (slope,) = torch.autograd.grad(distribution_distance(leaf, torch.rand(1, 2, 8, 8).double()).sum(), leaf)
        assert slope[:, 1].abs().max() < 1

    @pytest.mark.parametrize("kind", ["grey", "black", "equal", "photograph"])
    def test_is_finite_and_bounded(self, kind):
        critic = create_critic("perceptual", None, options={"criterion": "distribution"})
        y = {"grey": torch.full((1, 3, 32, 32), 0.5), "black": torch.zeros(1, 3, 32, 32)}.get(kind, photographs(32)[:1])
        x = (y if kind == "equal" else y + 1e-3 * torch.rand(1, 3, 32, 32)).requires_grad_()
        score = critic(x, y)
        (slope,) = torch.autograd.grad(score.sum(), x)
        assert (score.item() == 0) == (kind == "equal")
        assert slope.norm() < 1e3

    def test_sees_what_is_behind_a_relu(self):
        with pytest.raises(ConfigError, match="names 'conv3_4': shares are of what is behind a ReLU"):
            create_critic("perceptual", None, options={"criterion": "distribution", "layers": {"conv3_4": 1.0}})


class TestNetworksOfTimm:
    @pytest.mark.parametrize("name", ["dino", "convnext"])
    def test_is_the_mean_distance_of_unit_features(self, name):
        critic = build_small(name)
        x, y = pair(2, 56)
        fx, fy = critic.look(x), critic.look(y)
        distances = [(F.normalize(fx[t], dim=1) - F.normalize(fy[t], dim=1)).square().sum(1).mean((1, 2)) for t in fx]
        torch.testing.assert_close(critic(x, y), torch.stack(distances).mean(0), rtol=1e-4, atol=1e-6)

    def test_tokens_are_those_of_timm(self):
        """Its own forward of its own network, positions resampled to another size."""
        timm = pytest.importorskip("timm")
        critic = build_small("dino")
        model = timm.create_model("vit_small_patch14_dinov2", pretrained=False, dynamic_img_size=True, **TOKENS).eval()
        model.load_state_dict(critic.trunk.model.state_dict(), strict=False)
        image = torch.rand(1, 3, 56, 42, generator=torch.Generator().manual_seed(0))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        (tokens,) = model.get_intermediate_layers(
            (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), n=[2], reshape=True, norm=False
        )
        torch.testing.assert_close(critic.look(image)["depth2"], tokens)

    def test_sides_are_continued_by_mirrored_pixels(self):
        critic = build_small("dino")
        x, y = pair(1, 50, 61)
        whole = [F.pad(image, (0, 9, 0, 6), mode="reflect") for image in (x, y)]
        torch.testing.assert_close(critic(x, y), critic(*whole))

    @pytest.mark.parametrize("name", ["dino", "convnext"])
    def test_reads_timms_file(self, name):
        """Names of timm's state dict, with a norm, a head and blocks that are left out."""
        small = build_small(name)
        sizes = TOKENS if name == "dino" else {"dims": (8, 10, 12, 16), "num_classes": 0}
        options = {"depths": [0, 1], "sizes": sizes}
        names = {"dino": "blocks.2.attn.qkv.weight", "convnext": "stages.3.blocks.0.norm.weight"}
        state = small.trunk.model.state_dict()
        state |= {"norm.weight" if name == "dino" else "head.norm.weight": torch.ones(4), names[name]: torch.ones(4)}
        if name == "convnext":
            state = {key: value for key, value in state.items() if not key.startswith("stages.2.")}
        critic = create_critic(name, weights=state, options=options)
        x, y = pair(1, 56)
        own = [critic.look(x)[tap] for tap in critic.taps]
        torch.testing.assert_close(own[0], small.look(x)["depth0"])
        assert 0 < float(critic(x, y)) < 4

    def test_dinov3_is_an_option(self):
        pytest.importorskip("timm")
        options = {"model": "vit_small_patch16_dinov3", "depths": [0], "sizes": TOKENS}
        critic = create_critic("dino", weights=None, options=options)
        x, y = pair(1, 40)
        assert critic.patch == 16
        assert float(critic(x, y)) > 0

    @pytest.mark.parametrize("options", [{"depths": []}, {"depths": [3, 1]}, {"depths": [-1]}], ids=str)
    def test_depths_must_rise(self, options):
        with pytest.raises(ConfigError, match="depths"):
            create_critic("convnext", weights=None, options=options)

    def test_what_timm_has_not_is_refused(self):
        with pytest.raises(PerceptlossError, match="no_such_network"):
            create_critic("dino", weights=None, options={"model": "no_such_network"})
        with pytest.raises(PerceptlossError, match="no taps"):
            create_critic("dino", weights=None, options={"depths": [99], "sizes": TOKENS})
