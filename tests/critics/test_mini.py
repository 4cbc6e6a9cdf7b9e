"""The critics of our own: what their construction promises, and what their shipped weights know."""

import re
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from skimage import data
from torch.utils.flop_counter import FlopCounterMode

from perceptloss import CriticLoss, create_critic
from perceptloss.critics.mini.band_bank import BandBank
from perceptloss.critics.mini.pair_distance import Positive, RisingHead
from perceptloss.critics.mini.statistics_bank import Lagged, Powers, StatisticsBank
from perceptloss.critics.mini.stereo import row_attention, smooth_norm
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.trunks import Lite, lite_state
from perceptloss.teach.degradations import degrade
from perceptloss.teach.degradations.enlarge import enlarge
from perceptloss.teach.degradations.stereo import stereo_pair
from perceptloss.weights.manifest import shipped

MINI = ("mini-fr", "mini-nr", "mini-stereo", "mini-underwater")
LADDERS = ("gaussian-blur", "white-noise", "jpeg", "bicubic-resize")


@lru_cache(maxsize=1)
def photo():
    return torch.from_numpy(data.astronaut()[:192, 96:288].copy()).permute(2, 0, 1)[None].float() / 255


def picture(channels):
    return photo() if channels == 3 else stereo_pair(photo(), seed=1, max_disparity=12)[0]


def ladder(name, levels):
    return torch.cat([degrade(photo(), name, level, seed=3) for level in levels])


# --- construction -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINI)
def test_is_small(name):
    critic = create_critic(name)
    assert sum(p.numel() for p in critic.parameters()) <= 3_500_000  # with the trunk that all share
    path = shipped() / f"{name}.safetensors"
    assert path.stat().st_size < 7_000_000
    with safe_open(path, "pt") as file:
        assert '"critic"' in file.metadata()["perceptloss"]
    assert (shipped() / f"{name}.md").is_file()


def test_all_weights_together_stay_small():
    assert sum(path.stat().st_size for path in shipped().glob("*.safetensors")) <= 20_000_000


def flops(critic, side=256):
    x = torch.rand(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        critic(x, x)
    return counter.get_total_flops()


def test_mini_fr_costs_a_tenth_of_lpips_vgg():
    assert 10 * flops(create_critic("mini-fr")) < flops(create_critic("lpips-vgg", weights=None))


@pytest.mark.parametrize("name", ["mini-fr", "mini-stereo"])
def test_distance_of_equal_images_is_exactly_zero_whatever_the_weights(name):
    for weights in ({}, {"weights": None}):
        critic = create_critic(name, **weights)
        image = picture(critic.card.channels)
        assert critic(image, image).item() == 0
        assert (critic(torch.rand_like(image), image) > 0).all()


def test_a_rising_head_rises_with_every_distance():
    torch.manual_seed(1)
    head = RisingHead(5, 4)
    v = torch.rand(64, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(head(v).sum(), v)
    assert (slope > 0).all()
    assert (head(torch.zeros(2, 5)) == 0).all()


def test_positive_weights_start_at_the_sum_asked_for():
    assert Positive(500, 3, start=4.0).weight.sum(1).mean().item() == pytest.approx(4, rel=0.2)
    assert (Positive(3, 2).weight > 0).all()


def test_bands_have_bounded_distances():
    bank = BandBank(3)
    x, y = torch.rand(2, 2, 3, 40, 33)
    found, own, facts = bank(x, y)
    assert found.shape == (2, bank.features) and own.shape == facts.shape == (2, bank.facts)
    assert (found >= 0).all() and found.max() <= 2
    same, own, facts = bank(y, y)
    assert (same == 0).all() and (own == facts).all()


def test_gradients_of_bands_and_statistics_are_those_of_their_values():
    torch.manual_seed(0)
    x, y = torch.rand(2, 1, 3, 12, 11, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: BandBank(2)(x, y)[0], x.clone().requires_grad_())
    assert torch.autograd.gradcheck(StatisticsBank(1), x.clone().requires_grad_())
    rows = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    for pooled in (lambda r: Lagged.apply(r, (1, 3)), Powers.apply):
        assert torch.autograd.gradcheck(pooled, rows) and torch.autograd.gradgradcheck(pooled, rows)


def test_steps_gathered_in_few_places_are_seen():
    image = photo()
    smooth, blocks = (enlarge(image, 4, name) for name in ("bilinear", "nearest"))
    sparser = [4, 9]  # its mean and weighted mean at full size
    found = [BandBank(1)(x, image)[0][0, sparser] for x in (smooth, blocks)]
    assert (found[1] > 2 * found[0]).all(), found


def test_masking_is_bounded_and_knows_the_reference_alone():
    critic = create_critic("mini-fr", weights=None)
    facts = 100 * torch.randn(64, critic.facts)
    torch.nn.init.normal_(critic.masking.outer.weight)
    factor = critic.masking(facts)
    assert factor.min() > 0.3 and factor.max() < 3.4 and factor.std() > 0.1
    x, y = torch.rand(2, 1, 3, 64, 64)
    reading = critic.reading(x, y, critic.look(x), critic.look(y))
    other = critic.reading(1 - x, y, critic.look(1 - x), critic.look(y))
    kept = slice(sum(critic.sizes[:2]), sum(critic.sizes[:3]))
    torch.testing.assert_close(reading[:, kept], other[:, kept])


def test_statistics_are_of_ordinary_size_on_any_image():
    bank = StatisticsBank(3)
    for image in (photo(), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), torch.rand(1, 3, 64, 64)):
        found = bank(image)
        assert found.shape == (1, bank.features) and found.isfinite().all() and found.abs().max() < 20


# --- the trunk ----------------------------------------------------------------------------------


def test_trunk_reads_every_pixel_equally_often():
    trunk = Lite().double()
    for module in trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1e-3)
    x = torch.full((1, 3, 256, 256), 0.9, dtype=torch.float64, requires_grad=True)
    trunk(x, ["near.block5"])["near.block5"].sum().backward()
    inner = x.grad[..., 96:-96, 96:-96]
    assert inner.max() / inner.min() < 1 + 1e-9


@pytest.mark.parametrize("number", [0, 1, pytest.param(2, marks=pytest.mark.thorough)])
def test_block_has_the_gradients_of_its_plain_form(number):
    torch.manual_seed(0)
    block = Lite().double().blocks[number]
    layer = block.depthwise if block.expand is None else block.expand
    h = torch.randn(1, layer.in_channels, 5, 4, dtype=torch.float64, requires_grad=True)
    out, lean = block(h), block(h, "lean")
    assert torch.autograd.gradgradcheck(block, h)
    found, spared = (torch.autograd.grad(o.sin().sum(), h)[0] for o in (out, lean))
    block.requires_grad_(True)
    plain = block(h)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(found, torch.autograd.grad(plain.sin().sum(), h)[0])
    assert torch.equal(spared, found) and torch.equal(lean, out)


def test_stem_has_the_gradients_of_its_plain_form():
    torch.manual_seed(0)
    trunk = Lite().double()
    for sides in ((6, 6), (7, 5)):
        h = torch.randn(1, 3, *sides, dtype=torch.float64, requires_grad=True)
        trunk.stem.requires_grad_(False)
        assert torch.autograd.gradgradcheck(lambda h: trunk.step(h, 0, "all"), h)
        out = trunk.step(h, 0, "all")
        (found,) = torch.autograd.grad(out.sin().sum(), h)
        trunk.stem.requires_grad_(True)
        plain = trunk.step(h, 0, "all")
        torch.testing.assert_close(out, plain)
        torch.testing.assert_close(found, torch.autograd.grad(plain.sin().sum(), h)[0])


def test_lean_trunk_keeps_its_inputs_alone():
    trunk, x = Lite(), torch.rand(4, 3, 64, 64, requires_grad=True)
    numbers = {}
    for keep in ("all", "lean"):
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, found=found: found.append(t.numel()) or t, lambda t: t):
            trunk(x, ["full.block7"], keep)
        numbers[keep] = sum(found)
    assert numbers["lean"] < numbers["all"] / 2


def test_strided_layers_become_the_mean_of_four_places():
    names = (
        ("_conv_stem", "_bn0"),
        *(
            (f"_blocks.{n}._{conv}", f"_blocks.{n}._{norm}")
            for n in range(16)
            for conv, norm in (("expand_conv", "bn0"), ("depthwise_conv", "bn1"), ("project_conv", "bn2"))
        ),
    )
    torch.manual_seed(0)
    file = {f"{conv}.weight": torch.randn(4, 3, 3, 3) for conv, _ in names}
    for _, norm in names:
        file |= {f"{norm}.{part}": torch.rand(4) + 0.5 for part in ("weight", "bias", "running_mean", "running_var")}
    state, x = lite_state(file), torch.rand(1, 3, 12, 12)
    for ours, theirs in (("stem", names[0]), ("blocks.1.depthwise", ("_blocks.1._depthwise_conv", "_blocks.1._bn1"))):
        numbers = [file[f"{theirs[1]}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        everywhere = F.batch_norm(F.conv2d(x, file[f"{theirs[0]}.weight"]), *numbers, eps=1e-3)
        found = F.conv2d(x, state[f"{ours}.weight"], state[f"{ours}.bias"])
        torch.testing.assert_close(found, F.avg_pool2d(everywhere, 2, 1))
    assert state["blocks.2.depthwise.weight"].shape[-1] == 3  # not strided


@pytest.mark.parametrize("name", ["mini-fr", "mini-nr"])
@pytest.mark.parametrize("damage", ["gaussian-blur", "white-noise"])
def test_gradient_has_no_grid(name, damage):
    """Its spectrum has no peak at the frequencies of strides, against what lies beside them."""
    whole = torch.from_numpy(data.astronaut()[:384, :384].copy()).permute(2, 0, 1)[None].float() / 255
    y = torch.cat([part for row in whole.split(128, 2) for part in row.split(128, 3)])
    x = degrade(y, damage, 2.0, seed=0).requires_grad_()
    create_critic(name)(x, y).sum().backward()
    window = torch.hann_window(96)
    power = torch.fft.fft2(x.grad.mean(1)[:, 16:-16, 16:-16] * window * window[:, None]).abs().square().mean(0)
    for period in (2, 4):
        at = 96 // period
        beside = [*range(at - 7, at - 2), *range(at + 3, at + 8)]
        peak = power[at, :2].mean() + power[:2, at].mean()
        around = power[beside, :2].mean() + power[:2, beside].mean()
        assert 10 * (peak / around).log10() < 3, (period, peak / around)
        square = power[at - 7 : at + 8, at - 7 : at + 8]
        corner = square[6:9, 6:9].mean() / square[0:4].mean()
        assert 10 * corner.log10() < 3, (period, corner)


def test_no_alternating_pattern_is_asked_for():
    """Steps that alternate are the most even ones; mini-fr wants even steps, but no restorer to print these."""
    y = torch.from_numpy(data.astronaut()[100:228, 150:278].copy()).permute(2, 0, 1)[None].float() / 255
    x = degrade(y, "gaussian-blur", 2.0, seed=0).requires_grad_()
    places = torch.arange(128)
    board = (places[:, None] + places) % 2 * 2.0 - 1
    slopes = {}
    for holds in (True, False):
        critic = create_critic("mini-fr")
        critic.hold_weights = holds
        near = [(x + sign * 2e-3 * board).detach().requires_grad_() for sign in (1, -1)]
        slopes[holds] = [
            float(sign * (torch.autograd.grad(critic(image, y).sum(), image)[0] * board).sum())
            for sign, image in zip((1, -1), near, strict=True)
        ]
    assert all(slope < 0 for slope in slopes[False])  # more of either phase is better, by its exact derivative
    assert all(held > 0 for held in slopes[True]), slopes


def operations(loss):
    x, y = torch.rand(2, 2, 3, 128, 128)
    with FlopCounterMode(display=False) as counter:
        loss(x.requires_grad_(), y).backward()
    return counter.get_total_flops()


def test_terms_that_see_alike_share_one_run_of_the_trunk():
    terms = {"mini-fr": 1.0, "mini-underwater": 0.1}
    alone = [operations(CriticLoss({name: weight}, grad="autograd")) for name, weight in terms.items()]
    assert operations(CriticLoss(terms, grad="autograd")) < 1.3 * max(alone)


def test_terms_of_all_kinds_hold_one_trunk():
    loss_fn = CriticLoss({"mini-fr": 1.0, "mini-nr": 0.1, "mini-underwater": 0.1})
    assert len({id(term.critic.trunk) for term in loss_fn.terms}) == 1


# --- stereo -------------------------------------------------------------------------------------


def test_exchanging_the_views_changes_nothing():
    critic = create_critic("mini-stereo")
    y = picture(6)
    x = degrade(y, "asymmetric-noise", 4.0, seed=0)
    swapped = critic(x.roll(3, 1), y.roll(3, 1))
    torch.testing.assert_close(swapped, critic(x, y), rtol=1e-5, atol=1e-6)


def test_both_views_get_a_gradient():
    y = picture(6)
    x = degrade(y, "asymmetric-blur", 3.0, seed=0).requires_grad_()
    create_critic("mini-stereo")(x, y).sum().backward()
    assert (x.grad[:, :3].abs().sum() > 0) and (x.grad[:, 3:].abs().sum() > 0)


def test_row_attention_finds_a_shift():
    torch.manual_seed(2)
    left = torch.randn(1, 32, 3, 12)
    right = torch.roll(left, -2, -1)  # what is at column w of the left view is at w - 2 of the right one
    shares = row_attention(left, right, sharpness=200.0)
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 3, 12))
    assert (shares.argmax(-1)[..., 2:] == torch.arange(10)).all()


def test_the_worse_view_counts_more_the_greater_the_power():
    views, shares = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]]), torch.full((2, 3), 0.5)
    mean, most = (smooth_norm(views, shares, torch.tensor(p)) for p in (1.0, 60.0))
    torch.testing.assert_close(mean, torch.tensor([2.0, 0.0, 2.0]))
    assert most[0] > 2.9 and most[1] == 0 and abs(most[2] - 2) < 1e-5


# --- what the shipped weights know --------------------------------------------------------------


@pytest.mark.parametrize("name", [*LADDERS, "contrast-down", "saturation-down", "banding"])
def test_more_damage_is_further_from_the_reference(name):
    images = ladder(name, (0, 1.5, 3, 5))
    distance = create_critic("mini-fr")(images, photo().expand_as(images))
    assert (distance.diff() > 0).all(), distance


@pytest.mark.parametrize("name", LADDERS)
def test_more_damage_is_worse_without_a_reference(name):
    quality = create_critic("mini-nr")(ladder(name, (0, 1.5, 3)))  # ruins are all alike to it
    assert (quality.diff() < 0).all(), quality


@pytest.mark.parametrize("name", ["asymmetric-blur", "asymmetric-noise", "vertical-misalignment", "crosstalk"])
def test_more_stereo_damage_is_worse(name):
    y = picture(6)
    x = torch.cat([degrade(y, name, level, seed=3) for level in (0, 1.5, 3, 5)])
    distance = create_critic("mini-stereo")(x, y.expand_as(x))
    assert (distance.diff() > 0).all(), distance


@pytest.mark.parametrize("name", ["underwater-attenuation", "underwater-veil", "underwater-blur"])
def test_more_water_is_worse(name):
    quality = create_critic("mini-underwater")(ladder(name, (0, 2.5, 5)))
    assert (quality.diff() < 0).all(), quality


@pytest.mark.parametrize("name", ["mini-fr", "mini-nr"])
@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8])
def test_pixelation_is_worse_than_smooth_enlargement(name, factor):
    critic = create_critic(name)
    sign = 1 if critic.card.better == "higher" else -1
    for picture in (data.astronaut(), data.coffee(), data.chelsea()):
        y = torch.from_numpy(picture[:288, :288].copy()).permute(2, 0, 1)[None].float() / 255
        nearest, *smooth = (sign * critic(enlarge(y, factor, n), y).item() for n in ("nearest", "bilinear", "bicubic"))
        assert nearest < min(smooth), (nearest, smooth)


def test_preference_is_a_probability_that_turns_with_its_images():
    critic, y = create_critic("mini-fr"), photo()
    a, b = degrade(y, "gaussian-blur", 1.5, seed=0), degrade(y, "gaussian-blur", 4.0, seed=0)
    for reference in (y, degrade(y, "jpeg", 2.0, seed=0)):
        first, second = critic.prefer(a, b, reference), critic.prefer(b, a, reference)
        torch.testing.assert_close(first + second, torch.ones(1))
        assert first > 0.7, first
    assert critic.prefer(a, a, y).item() == 0.5


def test_preference_says_which_image_it_cannot_take():
    critic, y = create_critic("mini-fr"), torch.rand(2, 3, 40, 40)
    assert critic.prefer(y[:0], y[:0], y[:0]).shape == (0,)
    for images, part in (
        ((y * 3, y, y), "where a is x: critic 'mini-fr' needs x in [0, 1]"),
        ((y, y[:1], y), "where b is x: critic 'mini-fr' needs x and y of one shape"),
    ):
        with pytest.raises(InputError, match=re.escape(f"prefer(a, b, y), {part}")):
            critic.prefer(*images)


def test_from_farther_away_fine_damage_counts_less():
    y = photo()
    x, other = degrade(y, "high-frequency-noise", 3.0, seed=0), degrade(y, "contrast-down", 3.0, seed=0)
    near, far = create_critic("mini-fr"), create_critic("mini-fr", options={"pixels_per_degree": 120})
    assert far(x, y) / far(other, y) < near(x, y) / near(other, y)
    with pytest.raises(ConfigError, match="pixels_per_degree: expected 60, 120"):
        create_critic("mini-fr", options={"pixels_per_degree": 90})


@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize(("pixels_per_degree", "least"), [(240, 32), (480, 64), (960, 128)])
def test_what_is_too_small_to_be_seen_from_afar_is_refused(name, pixels_per_degree, least):
    critic = create_critic(name, options={"pixels_per_degree": pixels_per_degree})
    x = torch.rand(1, critic.card.channels, least, least + 1).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x, torch.rand_like(x)).sum(), x)
    assert slope.isfinite().all() and slope.abs().max() > 0
    with pytest.raises(InputError, match=f"at least {least}x{least}, got x of {least - 1}x{least + 1}"):
        critic(x[:, :, 1:], x[:, :, 1:])


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("mini-fr", {"hidden": 0, "scales": 0, "views": -1}, "3 problems"),
        ("mini-stereo", {"hidden": -1}, "options.hidden must be a whole number of at least 1, got -1"),
        ("mini-nr", {"hidden": 1}, "options.hidden must be 0, for a line, or at least 2, got 1"),
        ("mini-nr", {"scales": 0}, "options.scales must be a whole number of at least 1, got 0"),
        ("mini-underwater", {"drop": 2.0}, "options.drop must be at least 0 and below 1, got 2.0"),
    ],
)
def test_options_that_make_no_critic_are_refused(name, options, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        create_critic(name, weights=None, options=options)
