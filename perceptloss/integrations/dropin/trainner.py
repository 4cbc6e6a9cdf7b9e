"""What traiNNer-redux's losses mean."""

from __future__ import annotations

from typing import Final

from perceptloss.integrations.dropin.drop_in import BEHIND, LAYERS, ON, DropIn, Options, frequencies, mean_only, same
from perceptloss.loss.terms import TermOptions

__all__ = ["TRAINNER"]

_CRITERIA: Final = (("l1", "l2", "charbonnier"), "known are l1, l2 and charbonnier")
_SIMILARITY: Final = {
    "channels": ((3,), "images have three channels"),
    "downsample": ((False,), "no scale is left out here"),
    "color_space": (("yiq", "ycbcr"), "known are yiq and ycbcr"),
}
_KINDS: Final = (
    ("charbonnier", "l1", "pd", "fd", "pd+l1", "fd+l1"),
    "known are charbonnier, l1, pd, fd, pd+l1 and fd+l1",
)


def _luma(o: Options) -> Options:
    return {"color_space": o["color_space"] if o["test_y_channel"] else "rgb"}


def _of(o: Options, kind: str) -> Options:
    """Options of the critic for the taps that a kind of distance sees: `pd` and `fd` those behind ReLUs."""
    start = "relu" if kind in ("pd", "fd") else "conv"
    layers = o["layer_weights"] or (BEHIND if start == "relu" else LAYERS)
    if "+" in o["criterion"]:
        layers = {tap: weight for tap, weight in layers.items() if tap.startswith(start)}
    common = {"layers": layers, "border": "replicate"}
    if kind == "fd":
        return {**common, "num_proj": o["num_proj_fd"], "phase_weight": o["phase_weight_fd"], "stride": o["stride_fd"]}
    return {**common, "criterion": "distribution" if kind == "pd" else kind}


def _first(o: Options) -> str:
    """Of a sum such as `pd+l1` the distance of activations."""
    return "l1" if "+" in o["criterion"] else str(o["criterion"])


def _second(o: Options) -> list[TermOptions]:
    kind, plus, _ = o["criterion"].partition("+")
    critic = "fdl" if kind == "fd" else "perceptual"
    return [{"critic": critic, "name": kind, "weight": o["w_lambda"], "options": _of(o, kind)}] if plus else []


_PERCEPTUAL: Final = DropIn(
    lambda o: "fdl" if _first(o) == "fd" else "perceptual",
    {
        **{"layer_weights": None, "w_lambda": 0.01, "alpha": None, "criterion": "charbonnier", "num_proj_fd": 256},
        **{"phase_weight_fd": 1.0, "stride_fd": 1, "clip_min": 0},
    },
    {},
    {
        "criterion": _KINDS,
        "alpha": ((None,), "taps before a ReLU are compared by activations, those behind it as distributions"),
        "clip_min": ((0, 0.0), "nothing is clipped here"),
    },
    lambda o: _of(o, _first(o)),
    lambda o: o["w_lambda"] if _first(o) in ("pd", "fd") else 1.0,
    _second,
)
TRAINNER: Final[dict[str, DropIn]] = {
    "adistsloss": DropIn(
        "a-dists",
        {"window_size": 21, "resize_input": False},
        {"window_size": "window"},
        {"resize_input": ((False,), "nothing is resized here")},
        lambda o: {"guide": "judged"},
    ),
    "aesoploss": DropIn(
        "aesop",
        {"criterion": "charbonnier", "scale": 4, "pretrain_network_ae": None},
        same("criterion"),
        {
            "criterion": _CRITERIA,
            "scale": ((4,), "our auto-encoder shrinks by 4"),
            "pretrain_network_ae": ((None,), "our auto-encoder is another network; its file ships"),
        },
    ),
    "averageloss": DropIn("box-shrunk", {"criterion": "l1", "scale": 4}, same("criterion", "scale")),
    "bicubicloss": DropIn("bicubic-shrunk", {"criterion": "l1", "scale": 4}, same("criterion", "scale")),
    "charbonnierloss": DropIn("charbonnier", {"reduction": "mean", "eps": 1e-12}, same("eps"), mean_only()),
    "colorloss": DropIn("chroma", {"criterion": "l1", "scale": 4}, same("criterion", "scale")),
    "contextualloss": DropIn(
        "contextual",
        {
            **{"layer_weights": None, "crop_quarter": False, "max_1d_size": 100, "distance_type": "cosine", "b": 1.0},
            **{"band_width": 0.5, "use_vgg": True, "net": "vgg19", "calc_type": "regular", "z_norm": False},
        },
        {"band_width": "band_width", "distance_type": "distance"},
        {
            "crop_quarter": ((False,), "crop the term instead"),
            "use_vgg": ((True,), "it compares features"),
            "net": (("vgg19",), "its trunk is VGG19"),
            "calc_type": (("regular",), "neither the symmetric nor the bilateral form is here"),
            "z_norm": ((False,), "there it brings images from [-1, 1], which nothing here has"),
        },
        lambda o: {
            **{"positions": o["max_1d_size"] ** 2, "normalise": False, "batch_mean": True},
            **({"layers": o["layer_weights"]} if o["layer_weights"] else {}),
        },
    ),
    "cosimloss": DropIn("cosim", {"cosim_lambda": 5}, factor=lambda o: float(o["cosim_lambda"])),
    "dinoperceptualloss": DropIn("dino"),
    "distsloss": DropIn(
        "dists",
        {"as_loss": True, "load_weights": True, "use_input_norm": True, "resize_input": False, "clip_min": 0},
        {"use_input_norm": "normalise"},
        {
            "as_loss": ON,
            "load_weights": ON,
            "resize_input": ((False,), "nothing is resized here"),
            "clip_min": ((0, 0.0), "nothing is clipped here"),
        },
    ),
    "fdloss": DropIn(
        "fdl",
        {"patch_size": 5, "stride": 1, "num_proj": 256, "model": "VGG", "phase_weight": 1.0},
        same("patch_size", "stride", "num_proj", "phase_weight"),
        {"model": (("VGG", "vgg"), "its trunk is VGG19")},
    ),
    "ffloss": frequencies(50.0),
    "fliploss": DropIn("flip", {"pixels_per_degree": 67.02064327658226}, same("pixels_per_degree")),
    "gradientvarianceloss": DropIn(
        "gradient-variance", {"patch_size": 16, "criterion": "charbonnier"}, same("patch_size", "criterion")
    ),
    "hsluvloss": DropIn(
        "hsluv",
        {
            **dict.fromkeys(("hue_weight", "saturation_weight", "lightness_weight"), 1 / 3),
            **{"criterion": "l1", "downscale_factor": 1},
        },
        same("hue_weight", "saturation_weight", "lightness_weight", "criterion", "downscale_factor"),
    ),
    "l1loss": DropIn("charbonnier", {"reduction": "mean"}, only=mean_only(), made=lambda o: {"criterion": "l1"}),
    "ldlloss": DropIn(
        "ldl", {"criterion": "l1"}, same("criterion"), made=lambda o: {"constant": False}, sees_average=True
    ),
    "lumaloss": DropIn("luma", {"criterion": "l1"}, same("criterion")),
    "mseloss": DropIn("charbonnier", {"reduction": "mean"}, only=mean_only(), made=lambda o: {"criterion": "l2"}),
    "mssimloss": DropIn(
        "ms-ssim-luma",
        {
            **{"channels": 3, "downsample": False, "test_y_channel": True, "is_prod": True, "color_space": "yiq"},
            **{"include_luminance": False},
        },
        {"is_prod": "is_prod", "include_luminance": "luminance"},
        _SIMILARITY,
        _luma,
    ),
    "msssiml1loss": DropIn(
        "ms-ssim-l1",
        {
            **{"gaussian_sigmas": None, "data_range": 1.0, "k": (0.01, 0.03), "alpha": 0.1, "cuda_dev": 0},
            **{"compensation": 1.0},
        },
        same("alpha"),
        {
            "data_range": ((1.0,), "images are in [0, 1]"),
            "k": (((0.01, 0.03), [0.01, 0.03]), "its constants are those of SSIM"),
        },
        lambda o: {"channels": "product", **({"sigmas": o["gaussian_sigmas"]} if o["gaussian_sigmas"] else {})},
        lambda o: float(o["compensation"]),
    ),
    "msswdloss": DropIn(
        "ms-swd",
        {"num_scale": 5, "num_proj": 128, "patch_size": 11, "stride": 1, "c": 3},
        same("num_scale", "num_proj"),
        {
            "patch_size": ((11,), "patches have 11 pixels, as published"),
            "stride": ((1,), "every patch is seen, as published"),
            "c": ((3,), "images have three channels"),
        },
    ),
    "nccloss": DropIn("ncc"),
    "perceptualfp16loss": _PERCEPTUAL,
    "perceptualloss": _PERCEPTUAL,
    "psnrloss": DropIn(
        "psnr",
        {"reduction": "mean", "to_y": False},
        only=mean_only(),
        made=lambda o: {"colour": "y" if o["to_y"] else "rgb"},
        factor=lambda o: 80.0,
    ),
    "ssimloss": DropIn(
        "ms-ssim-luma",
        {"channels": 3, "downsample": False, "test_y_channel": True, "color_space": "yiq", "crop_border": 0.0},
        only={**_SIMILARITY, "crop_border": ((0, 0.0), "crop the term instead")},
        made=lambda o: {**_luma(o), "luminance": True, "multiscale": False},
    ),
}
