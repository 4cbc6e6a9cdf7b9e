"""What neosr's losses mean."""

from __future__ import annotations

from typing import Final

from perceptloss.integrations.dropin.drop_in import LAYERS, ON, DropIn, Options, frequencies, mean_only, same
from perceptloss.integrations.dropin.trainner import TRAINNER

__all__ = ["NEOSR"]

_STATISTICS: Final = "statistics of windows have 11 taps of sigma 1.5 here, as published"
_CHC: Final = {"chc": "clipped"}


def _dino(o: Options) -> Options:
    depths = tuple(o["dino_layers"] or range(8))
    scales = o["dino_weights"] or (1.0, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 0.1)
    return {"depths": depths, "scales": scales, "normalise": o["dino_norm"]}


NEOSR: Final[dict[str, DropIn]] = {
    "L1Loss": TRAINNER["l1loss"],
    "MSELoss": TRAINNER["mseloss"],
    "HuberLoss": DropIn(
        "charbonnier",
        {"reduction": "mean", "delta": 1.0},
        only={**mean_only(), "delta": ((1, 1.0), "Huber's loss turns at 1 here")},
        made=lambda o: {"criterion": "huber"},
    ),
    "chc_loss": DropIn(
        "charbonnier",
        {"reduction": "mean", "criterion": "huber", "loss_lambda": 0, "clip_min": 0.003921, "clip_max": 0.996078},
        only={
            **mean_only(),
            "criterion": (("huber",), "its rounded form is clipped here"),
            "loss_lambda": ((0, 0.0), "give cosim a weight of its own"),
            "clip_min": ((0.003921,), "clips are at 1 and 254 levels of 8 bits"),
            "clip_max": ((0.996078,), "clips are at 1 and 254 levels of 8 bits"),
        },
        made=lambda o: {"criterion": "clipped"},
    ),
    "consistency_loss": DropIn(
        "consistency",
        {"criterion": "chc", "blur": True, "cosim": True, "saturation": 1.0, "brightness": 1.0},
        same("blur", "cosim", "saturation", "brightness"),
        {"criterion": (("chc", "l1"), "known are chc and l1")},
        lambda o: {"criterion": "charbonnier" if o["criterion"] == "chc" else "l1"},
    ),
    "dists_loss": DropIn(
        "dists",
        {"as_loss": True, "load_weights": True},
        only={"as_loss": ON, "load_weights": ON},
        made=lambda o: {"normalise": False},
    ),
    "fdl_loss": DropIn(
        lambda o: "fdl-dino" if o["model"] == "dinov2" else "fdl",
        {
            **{"patch_size": 4, "stride": 1, "num_proj": 24, "model": "dinov2", "vgg_weights": None},
            **{"dino_layers": None, "dino_weights": None, "dino_norm": False, "phase_weight": 1.0},
        },
        same("patch_size", "stride", "num_proj", "phase_weight"),
        {"model": (("dinov2", "vgg", "VGG"), "known are dinov2 and vgg")},
        lambda o: _dino(o) if o["model"] == "dinov2" else {"scales": o["vgg_weights"] or (0.5, 0.5, 1.0, 1.0, 1.0)},
        lambda o: 1.0 if o["model"] == "dinov2" else 0.01,
    ),
    "ff_loss": frequencies(1.0),
    "gw_loss": DropIn(
        "gradient-weighted",
        {"corner": True, "criterion": None},
        same("corner"),
        {"criterion": ((None,), "it multiplies two means there, so that no pixel weighs more")},
    ),
    "kl_loss": DropIn("channel-kl", made=lambda o: {"total": True}, factor=lambda o: 0.03),
    "ldl_loss": DropIn(
        "ldl",
        {"criterion": "l1", "ksize": 7},
        same("criterion", "ksize"),
        {"criterion": (("huber", "l1", "l2"), "known are huber, l1 and l2; weighted differences are below chc's clip")},
        lambda o: {"constant": False},
    ),
    "mssim_loss": DropIn(
        "ms-ssim-luma",
        {"window_size": 11, "in_channels": 3, "sigma": 1.5, "K1": 0.01, "K2": 0.03, "L": 1, "padding": None},
        only={
            "window_size": ((11,), _STATISTICS),
            "in_channels": ((3,), "images have three channels"),
            "sigma": ((1.5,), _STATISTICS),
            "K1": ((0.01,), "constants are those of the paper"),
            "K2": ((0.03,), "constants are those of the paper"),
            "L": ((1, 1.0), "images lie in [0, 1]"),
            "padding": ((None, 5), "scales are surrounded by half a window"),
        },
        made=lambda o: {"color_space": "rgb", "luminance": True, "padded": True},
    ),
    "msswd_loss": DropIn(
        "ms-swd",
        {"num_scale": 3, "num_proj": 24, "patch_size": 11, "stride": 1, "c": 3},
        same("num_scale", "num_proj"),
        TRAINNER["msswdloss"].only,
        factor=lambda o: 0.1,
    ),
    "ncc_loss": TRAINNER["nccloss"],
    "vgg_perceptual_loss": DropIn(
        "perceptual",
        {
            **{"layer_weights": None, "vgg_type": "vgg19", "use_input_norm": True, "range_norm": False},
            **{"criterion": "huber", "patchloss": False, "ipk": False, "patch_weight": 1.0},
        },
        {"use_input_norm": "normalise"},
        {
            "vgg_type": (("vgg19",), "its trunk is VGG19"),
            "range_norm": ((False,), "images lie in [0, 1]"),
            "criterion": (("chc", "huber", "l1", "l2"), "known are chc, huber, l1 and l2; pdl compares distributions"),
            "patchloss": ((False,), "there is no patch loss here; it sends no gradient there"),
            "ipk": ((False,), "there is no patch loss here; it sends no gradient there"),
        },
        lambda o: {"layers": o["layer_weights"] or LAYERS, "criterion": _CHC.get(o["criterion"], o["criterion"])},
    ),
}
