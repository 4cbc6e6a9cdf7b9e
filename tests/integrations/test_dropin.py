"""Losses of traiNNer-redux and neosr by name: those that their templates use build, train, and mean the same."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from images import pair, photographs
from test_hosts import Registry
from torch import nn

from perceptloss import create_critic, get_card
from perceptloss.errors import ConfigError, InputError
from perceptloss.integrations.dropin import drop_in_loss, known_names, meaning_of, register_drop_ins
from perceptloss.networks.artefacts import artefact_map
from perceptloss.registry import find_entry, option_problems

VGG = {"weights": None}  # of torchvision, which tests do not have
LAYERS = {"conv4_4": 1.0}
# what is switched on in the templates and references of the two hosts, with the options that stand there
TRAINNER = [
    {"type": "charbonnierloss", "loss_weight": 1.0},
    {"type": "l1loss", "loss_weight": 1.0, "reduction": "mean"},
    {"type": "mseloss", "loss_weight": 1.0, "reduction": "mean"},
    {"type": "mssimloss", "loss_weight": 0.5},
    {"type": "perceptualloss", "criterion": "charbonnier", "loss_weight": 0.01, **VGG},
    {"type": "perceptualloss", "criterion": "l1", "layer_weights": LAYERS, "loss_weight": 1.0, **VGG},
    {"type": "perceptualloss", "criterion": "pd", "loss_weight": 0.01, **VGG},
    {"type": "perceptualloss", "criterion": "pd+l1", "w_lambda": 0.02, "loss_weight": 0.01, **VGG},
    {"type": "perceptualloss", "criterion": "fd", "num_proj_fd": 4, "loss_weight": 0.01, **VGG},
    {
        "type": "perceptualloss",
        "criterion": "fd+l1",
        "num_proj_fd": 4,
        "phase_weight_fd": 0.5,
        "loss_weight": 0.01,
        **VGG,
    },
    {"type": "perceptualfp16loss", "criterion": "charbonnier", "loss_weight": 0.01, **VGG},
    {"type": "psnrloss", "loss_weight": 1.0, "reduction": "mean", "to_y": False},
    {"type": "psnrloss", "loss_weight": 1.0, "to_y": True},
    {
        "type": "ssimloss",
        "loss_weight": 1.0,
        "channels": 3,
        "downsample": False,
        "test_y_channel": True,
        "color_space": "yiq",
    },
    {"type": "hsluvloss", "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "hsluvloss", "hue_weight": 0.5, "downscale_factor": 2, "loss_weight": 1.0},
    {"type": "cosimloss", "loss_weight": 1.0},
    {"type": "nccloss", "loss_weight": 1.0},
    {"type": "distsloss", "loss_weight": 0.3, **VGG},
    {"type": "distsloss", "loss_weight": 0.3, "use_input_norm": False, **VGG},
    {"type": "ldlloss", "loss_weight": 1.0},
    {"type": "ffloss", "loss_weight": 0.2},
    {"type": "lumaloss", "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "colorloss", "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "averageloss", "criterion": "l1", "loss_weight": 1.0},
    {"type": "bicubicloss", "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "contextualloss", "loss_weight": 1.0, **VGG},
    {"type": "contextualloss", "loss_weight": 1.0, "layer_weights": LAYERS, "distance_type": "l2", **VGG},
    {"type": "gradientvarianceloss", "patch_size": 16, "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "fliploss", "pixels_per_degree": 67.02064327658226, "loss_weight": 1.0},
    {"type": "msswdloss", "num_scale": 3, "num_proj": 8, "loss_weight": 1.0},
    {"type": "fdloss", "num_proj": 4, "patch_size": 4, "loss_weight": 0.1, **VGG},
    {"type": "dinoperceptualloss", "loss_weight": 1.0, **VGG},
    {"type": "aesoploss", "criterion": "l1", "loss_weight": 1.0},
    {"type": "aesoploss", "criterion": "charbonnier", "loss_weight": 1.0},
    {"type": "adistsloss", "loss_weight": 0.5, **VGG},
    {"type": "adistsloss", "loss_weight": 0.5, "window_size": 15, "resize_input": False, **VGG},
    {"type": "msssiml1loss", "loss_weight": 1.0, "alpha": 0.1},
    {
        "type": "msssiml1loss",
        "loss_weight": 1.0,
        "gaussian_sigmas": [0.5, 1.0, 2.0],
        "alpha": 0.025,
        "compensation": 200,
    },
]
NEOSR = [
    {"type": "L1Loss", "loss_weight": 1.0},
    {"type": "MSELoss", "loss_weight": 1.0},
    {"type": "HuberLoss", "loss_weight": 1.0, "delta": 1.0},
    {"type": "chc_loss", "loss_weight": 1.0},
    {"type": "mssim_loss", "loss_weight": 1.0},
    {"type": "consistency_loss", "loss_weight": 1.0},
    {"type": "consistency_loss", "loss_weight": 1.0, "saturation": 1.1, "brightness": 1.05, "criterion": "l1"},
    {"type": "vgg_perceptual_loss", "loss_weight": 0.5, "criterion": "chc", **VGG},
    {"type": "dists_loss", "loss_weight": 0.5, **VGG},
    {"type": "ldl_loss", "loss_weight": 1.0, "criterion": "huber"},
    {"type": "ff_loss", "loss_weight": 0.35},
    {"type": "gw_loss", "loss_weight": 0.2},
    {"type": "gw_loss", "loss_weight": 0.2, "corner": False},
    {"type": "ncc_loss", "loss_weight": 1.0},
    {"type": "kl_loss", "loss_weight": 1.0},
    {"type": "msswd_loss", "loss_weight": 1.0},
    {"type": "consistency_loss", "loss_weight": 1.0, "saturation": 1.0, "brightness": 1.0},
    {"type": "vgg_perceptual_loss", "loss_weight": 0.5, "criterion": "huber", "patch_weight": 1.0, **VGG},
    {"type": "fdl_loss", "loss_weight": 0.2, "model": "vgg", "num_proj": 4, **VGG},
    {"type": "fdl_loss", "loss_weight": 0.75, "model": "dinov2", "dino_layers": [0], "dino_weights": [1.0], **VGG},
    {"type": "vgg_perceptual_loss", "loss_weight": 0.5, "criterion": "l1", "layer_weights": LAYERS, **VGG},
]
USED = [("trainner", opt) for opt in TRAINNER] + [("neosr", opt) for opt in NEOSR]


def least(term):
    """What a loss of a critic is by its term, of a similarity how far it is from the best."""
    weights = {"weights": None} if get_card(term["critic"]).weights and term["critic"] != "aesop" else {}
    critic = create_critic(term["critic"], options=term["options"], **weights)
    low, high = critic.card.bounds
    is_distance = critic.card.better == "lower"
    return lambda x, y: critic.forward(x, y) if is_distance else (high - critic.forward(x, y)) / (high - low)


@pytest.mark.parametrize(
    ("dialect", "opt"), USED, ids=lambda value: value["type"] if isinstance(value, dict) else value
)
def test_what_templates_use_builds_trains_and_means_the_critic(dialect, opt):
    registry = Registry()
    register_drop_ins(registry, dialect)
    loss = registry.build(opt)
    # one image, since some hosts mix those of a batch; patches of 5x5 of the deepest features need 80 pixels
    lq, gt = pair(1, 80 if "fd" in opt.get("criterion", "") else 64)
    network = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3)[:, :, None, None] * F.pad(torch.ones(1, 1), (1, 1, 1, 1)))
    output = network(lq)
    value = loss(output, gt) * (loss.loss_weight if dialect == "trainner" else 1)
    (gradient,) = torch.autograd.grad(value, network.weight)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    given = {key: item for key, item in opt.items() if key not in ("type", "loss_weight", "weights")}
    terms = meaning_of(opt["type"], dialect).terms(opt["type"], given)
    wanted = sum(term["weight"] * least(term)(output.detach(), gt).mean() for term in terms)
    torch.testing.assert_close(value.detach(), opt["loss_weight"] * wanted, rtol=1e-4, atol=1e-7)


# every option of the reference of traiNNer-redux's losses, with the value that stands there
THIRD = 0.3333333333333333
REFERENCE = {
    "adistsloss": {"window_size": 21, "resize_input": False},
    "aesoploss": {"criterion": "charbonnier"},
    "averageloss": {"criterion": "l1"},
    "bicubicloss": {"criterion": "l1"},
    "charbonnierloss": {"reduction": "mean", "eps": 1e-12},
    "colorloss": {"criterion": "l1"},
    "contextualloss": {
        **{"layer_weights": None, "crop_quarter": False, "max_1d_size": 100, "distance_type": "cosine", "b": 1.0},
        **{"band_width": 0.5, "use_vgg": True, "net": "vgg19", "calc_type": "regular", "z_norm": False},
    },
    "cosimloss": {"cosim_lambda": 5},
    "distsloss": {"as_loss": True, "load_weights": True, "use_input_norm": True, "clip_min": 0},
    "ffloss": {"alpha": 1.0, "patch_factor": 1, "ave_spectrum": True, "log_matrix": False, "batch_matrix": False},
    "fliploss": {"pixels_per_degree": 67.02064327658226},
    "gradientvarianceloss": {"patch_size": 16, "criterion": "charbonnier"},
    "hsluvloss": {
        **{"hue_weight": THIRD, "saturation_weight": THIRD, "lightness_weight": THIRD},
        **{"criterion": "l1", "downscale_factor": 1},
    },
    "l1loss": {"reduction": "mean"},
    "ldlloss": {"criterion": "l1"},
    "lumaloss": {"criterion": "l1"},
    "mseloss": {"reduction": "mean"},
    "mssimloss": {
        **{"channels": 3, "downsample": False, "test_y_channel": True, "is_prod": True, "color_space": "yiq"},
        **{"include_luminance": False},
    },
    "msssiml1loss": {
        **{"gaussian_sigmas": None, "data_range": 1.0, "k": [0.01, 0.03], "alpha": 0.1, "cuda_dev": 0},
    },
    "nccloss": {},
    "perceptualfp16loss": {
        **{"layer_weights": None, "w_lambda": 0.01, "alpha": None, "criterion": "charbonnier", "num_proj_fd": 256},
        **{"phase_weight_fd": 1.0, "stride_fd": 1, "clip_min": 0},
    },
    "perceptualloss": {
        **{"layer_weights": None, "w_lambda": 0.01, "alpha": None, "criterion": "charbonnier", "num_proj_fd": 256},
        **{"phase_weight_fd": 1.0, "stride_fd": 1, "clip_min": 0},
    },
    "psnrloss": {"reduction": "mean", "to_y": False},
    "ssimloss": {
        **{"channels": 3, "downsample": False, "test_y_channel": True, "color_space": "yiq", "crop_border": 0.0},
    },
}


@pytest.mark.parametrize("name", REFERENCE)
def test_every_option_of_the_reference_moves_over_and_is_the_default(name):
    meaning = meaning_of(name, "trainner")
    assert meaning.terms(name, REFERENCE[name]) == meaning.terms(name, {})
    for term in meaning.terms(name, {}):
        assert option_problems(find_entry(term["critic"]), term["options"]) == []


def test_every_name_of_the_tables_is_used():
    for dialect in ("trainner", "neosr"):
        assert set(known_names(dialect)) == {opt["type"] for kind, opt in USED if kind == dialect}


def charbonnier(d):
    return (d.square() + 1e-12).sqrt().mean()


def _colour(x, y):
    rows = torch.tensor([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    return F.avg_pool2d(torch.einsum("rc,nchw->nrhw", rows, x - y), 4).abs().mean()


def _bicubic(x, y):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    size = [x.shape[2] // 4, x.shape[3] // 4]
    steps = [v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.GaussianBlur([5, 5], [0.5, 0.5])]
    return (v2.Compose(steps)(x) - v2.Compose(steps)(y)).abs().mean()


def _msssim(x, y, padding=0, rgb=False):
    """Multi-scale similarity as the two hosts have it, of one image."""
    row = torch.exp(-((torch.arange(11.0) - 5) ** 2) / 4.5)
    window = torch.outer(row, row) / row.sum() ** 2
    if not rgb:
        x, y = (torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), i)[:, None] for i in (x, y))
    kernel = window.expand(x.shape[1], 1, 11, 11)
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        edge = padding or (5 if x.shape[-1] < 11 else 0)
        mean = [F.conv2d(i, kernel, padding=edge, groups=x.shape[1]) for i in (x, y, x * x, y * y, x * y)]
        mx, my, xx, yy, xy = mean
        value = (2 * (xy - mx * my) + 0.03**2) / (xx - mx * mx + yy - my * my + 0.03**2)
        if rgb and scale == 4:
            value = value * (2 * mx * my + 0.01**2) / (mx * mx + my * my + 0.01**2)
        product *= (value if rgb else value.relu()).mean() ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return 1 - product


def _ncc(x, y):
    """Of one image, whose channels both hosts take as rows."""
    x, y = (image.reshape(3, -1) - image.reshape(3, -1).mean(1, keepdim=True) for image in (x, y))
    like = (x * y).sum(1) / ((x**2).sum(1) * (y**2).sum(1)).sqrt()
    return 1 - (like.mean() + 1) / 2


def _gradient_weighted(x, y, corner=True):
    """As in neosr, whose kernels for the diagonals are those for the sides."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    grey = (x.mean(1, keepdim=True), y.mean(1, keepdim=True))
    sides = [
        (F.conv2d(grey[0], k, padding=1) - F.conv2d(grey[1], k, padding=1)).abs()
        for k in (kernel[None, None], kernel.T[None, None])
    ]
    if not corner:
        return ((1 + 4 * torch.cat(sides, 1).amax(1, keepdim=True)) * (x - y).abs()).mean()
    return ((1 + 4 * sides[0]) * (1 + 4 * sides[1]) * (1 + 4 * sides[0]) * (1 + 4 * sides[1]) * (x - y).abs()).mean()


def _kl(x, y):
    p, q = (image.softmax(1) for image in (x, y))
    return 0.03 * F.kl_div((p + 1e-8).log(), q, reduction="batchmean")


def _light(image):
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def _consistency(x, y):
    """As in neosr, of images without dark places."""
    v2 = pytest.importorskip("torchvision.transforms.v2")
    x, y = (image.clamp(1 / 255, 1) for image in (x, y))

    def lightness(image):
        luma = torch.einsum(
            "c,nchw->nhw", torch.tensor([0.2126, 0.7152, 0.0722]), _light(v2.GaussianBlur(21, 3)(image))
        )
        assert luma.min() > 216 / 24389
        return (1.16 * luma ** (1 / 3) - 0.16).clamp(0, 1)

    def oklab(image):
        cones = torch.tensor(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        ab = torch.tensor([[1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]])
        roots = torch.einsum("rc,nchw->nrhw", cones, _light(image)) ** (1 / 3)
        return (0.5 + torch.einsum("rc,nchw->nrhw", ab, roots)).clamp(0, 1)

    pairs = [(lightness(x), lightness(y)), (oklab(x), oklab(y))]
    distance = sum(charbonnier(a - b) for a, b in pairs)
    angle = sum(0.5 * (1 - F.cosine_similarity(a, b, dim=1, eps=1e-20).mean()) for a, b in pairs)
    return distance + (angle if angle < 1e-3 else 0)


def _ssim(x, y):
    """Of the luma, at the image's own scale, as in pyiqa and traiNNer-redux."""
    row = torch.exp(-((torch.arange(11.0) - 5) ** 2) / 4.5)
    window = (torch.outer(row, row) / row.sum() ** 2)[None, None]
    x, y = (torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114]), i)[:, None] for i in (x, y))
    mx, my, xx, yy, xy = (F.conv2d(i, window) for i in (x, y, x * x, y * y, x * y))
    structure = (2 * (xy - mx * my) + 0.03**2) / (xx - mx * mx + yy - my * my + 0.03**2)
    return 1 - (structure.relu() * (2 * mx * my + 0.01**2) / (mx * mx + my * my + 0.01**2)).mean()


def _msssim_l1(x, y, alpha=0.1):
    """Windows of 33x33 over each channel, zeros around; similarities of windows and channels are multiplied."""
    row = torch.arange(33.0) - 16
    kernels = []
    for sigma in (0.5, 1, 2, 4, 8):
        taps = torch.exp(-(row**2) / (2 * sigma**2))
        kernels.append(torch.outer(taps, taps) / taps.sum() ** 2)
    kernels = torch.stack(kernels)[:, None]
    similar, error = 1.0, 0.0
    for a, b in zip(x.split(1, 1), y.split(1, 1), strict=True):
        mx, my, xx, yy, xy = (F.conv2d(i, kernels, padding=16) for i in (a, b, a * a, b * b, a * b))
        light = ((2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2))[:, -1]
        similar = similar * light * ((2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2)).prod(1)
        error = error + F.conv2d((a - b).abs(), kernels[-1:], padding=16)[:, 0] / 3
    return (alpha * (1 - similar) + (1 - alpha) * error).mean()


def _psnr(x, y, to_y=False):
    if to_y:
        row = torch.tensor([65.481, 128.553, 24.966], dtype=x.dtype)
        x, y = ((torch.einsum("c,nchw->nhw", row, i)[:, None] + 16) / 255 for i in (x, y))
    return 10 / math.log(10) * ((x - y).square().mean((1, 2, 3)) + 1e-8).log().mean()


FORMULAS = {
    "l1loss": lambda x, y: (x - y).abs().mean(),
    "mseloss": lambda x, y: (x - y).square().mean(),
    "charbonnierloss": lambda x, y: charbonnier(x - y),
    "averageloss": lambda x, y: F.avg_pool2d(x - y, 4).abs().mean(),
    "colorloss": _colour,
    "bicubicloss": _bicubic,
    "cosimloss": lambda x, y: (
        5 * (1 - F.cosine_similarity(x.clamp_min(1e-12), y.clamp_min(1e-12), dim=1, eps=1e-20)).mean()
    ),
    "msssiml1loss": _msssim_l1,
    "mssimloss": _msssim,
    "nccloss": _ncc,
    "ssimloss": _ssim,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_those_of_the_formulas(name):
    y = (255 * photographs(96)[:1]).round() / 255
    x = (0.9 * F.avg_pool2d(y, 3, 1, 1) + 0.03).clamp(0, 1)
    torch.testing.assert_close(drop_in_loss(name, "trainner")(x, y), FORMULAS[name](x, y), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("ncc_loss", {}, _ncc),
        ("gw_loss", {}, _gradient_weighted),
        ("gw_loss", {"corner": False}, lambda x, y: _gradient_weighted(x, y, corner=False)),
        ("kl_loss", {}, _kl),
        ("consistency_loss", {}, _consistency),
    ],
)
def test_values_and_slopes_are_those_of_neosr(name, options, formula):
    y = 0.2 + 0.8 * photographs(64)[:1]
    x = (0.9 * F.avg_pool2d(y, 3, 1, 1) + 0.03).clamp(0, 1)
    found = []
    for loss in (drop_in_loss(name, "neosr", **options), formula):
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        found.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    torch.testing.assert_close(*(value for value, _ in found), rtol=1e-3, atol=1e-7)
    slopes = [slope.flatten() for _, slope in found]
    assert torch.cosine_similarity(*slopes, dim=0) > 0.999
    assert slopes[0].norm() == pytest.approx(slopes[1].norm().item(), rel=1e-2)


def test_locally_adaptive_similarity_is_guided_by_what_is_restored():
    """In traiNNer-redux the restored image comes where the authors' code has the reference."""
    x, y = pair(1, 48)
    loss = drop_in_loss("adistsloss", "trainner", **VGG)
    torch.testing.assert_close(loss(x, y), create_critic("a-dists", weights=None)(y, x)[0])


def test_compensation_of_the_older_form_is_a_factor():
    x, y = pair(1, 40)
    loss = drop_in_loss("msssiml1loss", "trainner", alpha=0.025, compensation=200, cuda_dev=1)
    torch.testing.assert_close(loss(x, y), 200 * _msssim_l1(x, y, 0.025), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("to_y", [False, True])
def test_psnr_is_the_hosts_but_for_eighty_decibels(to_y):
    """They pull alike; ours is 0 for what is perfect."""
    x, y = (image.double() for image in pair(2, 32))
    leaf = x.requires_grad_()
    ours, theirs = drop_in_loss("psnrloss", "trainner", to_y=to_y)(leaf, y), _psnr(leaf, y, to_y)
    torch.testing.assert_close(ours, theirs + 80)
    slopes = [torch.autograd.grad(value, leaf)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*slopes)


def _carried(x, y):
    """Of two maps: what `pd` of traiNNer-redux sums, positions one after another."""
    shares = [image.flatten() / (image.sum() + 1e-14) for image in (x, y)]
    return (shares[0].cumsum(0) - shares[1].cumsum(0)).abs().sum()


def test_distributions_of_features_are_those_of_trainner():
    """Taps behind ReLUs, each with its weight, times `w_lambda`; beside `+l1` the taps before them."""
    y = photographs(80)[:1]
    x = (0.9 * F.avg_pool2d(y, 3, 1, 1) + 0.03).clamp(0, 1)
    layers = {"relu1_2": 0.5, "conv2_1": 2.0}
    loss = drop_in_loss(
        "perceptualloss", "trainner", criterion="pd+l1", layer_weights=layers, w_lambda=0.1, weights=None
    )
    trunk = create_critic("perceptual", None, options={"border": "replicate", "layers": layers}).look
    fx, fy = trunk(x), trunk(y)
    pairs = zip(fx["relu1_2"][0], fy["relu1_2"][0], strict=True)
    wanted = 0.1 * 0.5 * torch.stack([_carried(a, b) for a, b in pairs]).mean()
    wanted = wanted + 2 * (fx["conv2_1"] - fy["conv2_1"]).abs().mean()
    torch.testing.assert_close(loss(x, y), wanted, rtol=1e-4, atol=1e-6)


def test_the_warm_up_of_trainner_moves_over():
    """Of 2025 the host reads `warmup_iter` from every loss: weight x iteration / warmup_iter until then."""
    x, y = pair(1, 32)
    in_host = drop_in_loss("l1loss", "trainner", loss_weight=2.0, warmup_iter=10)
    assert (in_host.loss_weight, in_host.warmup_iter) == (2.0, 10)
    assert drop_in_loss("l1loss", "trainner", loss_weight=0).warmup_iter == -1
    whole = in_host(x, y)
    moved = drop_in_loss("l1loss", "trainner", loss_weight=2.0, warmup_iter=10, weighs="loss")
    for step, share in ((0, 0.1), (4, 0.5), (9, 1.0), (50, 1.0)):
        moved.step = step
        torch.testing.assert_close(moved(x, y), share * 2 * whole)
    with pytest.raises(ConfigError, match="no option 'warmup_iter'"):
        drop_in_loss("L1Loss", "neosr", warmup_iter=10)


def test_neosrs_similarity_is_padded_and_of_all_channels():
    y = photographs(96)[:1]
    x = (0.9 * F.avg_pool2d(y, 3, 1, 1) + 0.03).clamp(0, 1)
    wanted = _msssim(x, y, padding=5, rgb=True)
    torch.testing.assert_close(drop_in_loss("mssim_loss", "neosr")(x, y), wanted, rtol=1e-3, atol=1e-5)


def test_focal_frequencies_of_trainner_are_fifty_times_those_of_neosr():
    package = pytest.importorskip("focal_frequency_loss")
    x, y = pair(3, 32)
    theirs = package.FocalFrequencyLoss(ave_spectrum=True)(x, y)
    torch.testing.assert_close(drop_in_loss("ff_loss", "neosr")(x, y), theirs)
    torch.testing.assert_close(drop_in_loss("ffloss", "trainner")(x, y), 50 * theirs)


class TestLDL:
    def test_takes_what_the_averaged_weights_restore(self):
        x, y = pair(2, 32)
        steady = 0.5 * x + 0.5 * y
        steady[..., :16] = x[..., :16] + 0.2
        loss = drop_in_loss("ldlloss", "trainner")
        leaf = x.requires_grad_()
        value = loss(leaf, steady, y)
        weights = artefact_map(x, y, steady)
        torch.testing.assert_close(value, (weights * (x - y).abs()).mean())
        (gradient,) = torch.autograd.grad(value, leaf)
        assert torch.isfinite(gradient).all()
        worse = (steady - y).abs().sum(1, keepdim=True) > (x - y).abs().sum(1, keepdim=True)
        assert worse.any()
        assert (weights[worse] == 0).all(), "spared where the averaged weights do worse"
        assert (weights[~worse] > 0).any()

    def test_images_that_do_not_fit_are_named(self):
        x, y = pair(1, 32)
        loss = drop_in_loss("ldlloss", "trainner")
        for images in ((x, x[..., :30], y), (x[..., :3, :3], x[..., :3, :3], y[..., :3, :3]), ((255 * x).byte(), x, y)):
            with pytest.raises(InputError, match="those of the averaged weights and the ground truth"):
                loss(*images)

    def test_other_losses_take_no_third_image(self):
        x, y = pair(1, 32)
        with pytest.raises(ConfigError, match="restored images and the ground truth"):
            drop_in_loss("l1loss", "trainner")(x, x, y)


def test_a_weight_of_nothing_switches_off_and_builds_nothing():
    """As in the templates, where losses stand with `loss_weight: 0`; no weights of a network are looked for."""
    x, y = pair(1, 32)
    loss = drop_in_loss("distsloss", "trainner", loss_weight=0)
    value = loss(x.requires_grad_(), y)
    assert value.item() == 0
    assert (torch.autograd.grad(value, x)[0] == 0).all()


@pytest.mark.parametrize(
    ("name", "dialect", "options", "sentence"),
    [
        ("distsloss", "trainner", {"resize_input": True}, "resize_input: True cannot mean the same here: nothing is"),
        ("mssimloss", "trainner", {"cosim": True}, "mssimloss has no option 'cosim'.*Known: channels, downsample"),
        (
            "perceptualloss",
            "trainner",
            {"criterion": "pd", "alpha": [0.5]},
            "alpha: \\[0.5\\] cannot mean the same here",
        ),
        ("perceptualloss", "trainner", {"criterion": "l2"}, "'l2' cannot mean the same here: known are charb"),
        ("adistsloss", "trainner", {"resize_input": True}, "resize_input: True cannot mean the same here: nothing is"),
        ("adistsloss", "trainner", {"window_size": 18, **VGG}, "options.window must be an odd number.*got 18"),
        ("msssiml1loss", "trainner", {"data_range": 255}, "data_range: 255 cannot mean the same here: images are in"),
        ("msssiml1loss", "trainner", {"k": [0.01, 0.05]}, "cannot mean the same here: its constants are those of SSIM"),
        ("topiqloss", "trainner", {}, "nothing here means the same as topiqloss: its weights may not be"),
        ("l1loss", "trainner", {"reduction": "sum"}, "'sum' cannot mean the same here: a loss is a mean"),
        ("fdl_loss", "neosr", {"model": "resnet"}, "model: 'resnet' cannot mean the same here"),
        ("ganloss", "trainner", {}, "keep the host's own"),
        ("gan_loss", "neosr", {}, "keep the host's own"),
        ("gw_loss", "neosr", {"criterion": "l1"}, "'l1' cannot mean the same here: it multiplies two means"),
        ("ldl_loss", "neosr", {"criterion": "chc"}, "'chc' cannot mean the same here.*below chc's clip"),
        ("vgg_perceptual_loss", "neosr", {"criterion": "pdl"}, "'pdl' cannot mean the same here"),
        ("hsluvlos", "trainner", {}, "did you mean 'hsluvloss'"),
        ("hsluvloss", "basicsr", {}, "host must be one of trainner, neosr"),
    ],
)
def test_what_cannot_mean_the_same_is_refused(name, dialect, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        drop_in_loss(name, dialect, weighs="loss", **options)


def test_all_problems_at_once():
    with pytest.raises(ConfigError, match="2 problems"):
        drop_in_loss("contextualloss", "trainner", net="vgg16", calc_type="bilateral")


class TestRegistries:
    def test_a_hosts_own_are_left_alone_unless_they_are_overridden(self):
        registry = Registry()

        class l1loss(nn.Module):  # noqa: N801
            pass

        registry.register(l1loss)
        names = register_drop_ins(registry, "trainner")
        assert "l1loss" not in names
        assert registry["l1loss"] is l1loss
        assert "l1loss" in register_drop_ins(registry, "trainner", override=True)
        assert registry["l1loss"] is not l1loss

    def test_in_basicsr(self):
        pytest.importorskip("perceptloss.integrations.basicsr")
        registry = pytest.importorskip("basicsr.utils.registry").Registry("loss")
        register_drop_ins(registry, "trainner", weighs="loss")
        x, y = pair(1, 32)
        loss = registry.get("hsluvloss")(loss_weight=0.5, criterion="l1")
        torch.testing.assert_close(loss(x, y), 0.5 * drop_in_loss("hsluvloss", "trainner")(x, y))

    def test_can_be_pickled(self):
        x, y = pair(1, 32)
        loss = drop_in_loss("ffloss", "trainner", alpha=0.5)
        torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(x, y), loss(x, y))
