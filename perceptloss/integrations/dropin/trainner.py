"""What traiNNer-redux's losses mean."""

from __future__ import annotations

from typing import Final

from perceptloss.integrations.dropin.drop_in import LAYERS, ON, DropIn, frequencies, mean_only, same

__all__ = ["TRAINNER"]

_CRITERIA: Final = (("l1", "l2", "charbonnier"), "known are l1, l2 and charbonnier")
_TWO: Final = (("charbonnier", "l1"), "pd and fd compare distributions: the critic fdl does, with options of its own")
_PERCEPTUAL: Final = DropIn(
    "perceptual",
    {
        **{"layer_weights": None, "w_lambda": 0.01, "alpha": None, "criterion": "charbonnier", "num_proj_fd": 256},
        **{"phase_weight_fd": 1.0, "stride_fd": 1, "clip_min": 0},
    },
    same("criterion"),
    {
        "criterion": _TWO,
        "alpha": ((None,), "only distributions have it"),
        "clip_min": ((0, 0.0), "nothing is clipped here"),
    },
    lambda o: {"layers": o["layer_weights"] or LAYERS, "border": "replicate"},
)
TRAINNER: Final[dict[str, DropIn]] = {
    "aesoploss": DropIn(
        "aesop",
        {"criterion": "l1", "scale": 4, "pretrain_network_ae": None},
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
        {
            "channels": ((3,), "images have three channels"),
            "downsample": ((False,), "no scale is left out here"),
            "color_space": (("yiq", "ycbcr"), "known are yiq and ycbcr"),
        },
        lambda o: {"color_space": o["color_space"] if o["test_y_channel"] else "rgb"},
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
}
