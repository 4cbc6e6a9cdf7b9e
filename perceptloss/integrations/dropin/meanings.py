"""What the names and options of two hosts' losses mean in critics of ours: one table a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from perceptloss.errors import ConfigError, near
from perceptloss.integrations.dropin.absent import ABSENT, Dialect
from perceptloss.loss.terms import TermOptions

__all__ = ["Dialect", "DropIn", "known_names", "meaning_of"]

Options = Mapping[str, Any]
_LAYERS: Final = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}


@dataclass(frozen=True)
class DropIn:
    """A loss of a host.

    Attributes:
        critic: That stands for it.
        defaults: Its options as the host has them, with the host's defaults.
        carried: Options that go to the critic as they are, under another name where one is given.
        only: Options that can have no other value here, and why.
        made: Further options of the critic, made of those of the host.
        factor: By which the host multiplies it, from its options.
        sees_average: Whether the host also gives it what the averaged weights restore.
    """

    critic: str
    defaults: Options = field(default_factory=dict)
    carried: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    made: Callable[[Options], Options] = lambda options: {}
    factor: Callable[[Options], float] = lambda options: 1.0
    sees_average: bool = False

    def term(self, name: str, given: Options) -> TermOptions:
        """The term of a `CriticLoss` that means the same.

        Raises:
            ConfigError: with every option that the host's loss has not, or that cannot mean the same.
        """
        problems = [
            f"{name} has no option {key!r}{near(key, self.defaults)} Known: {', '.join(self.defaults) or 'none'}"
            for key in given
            if key not in self.defaults
        ]
        options = {**self.defaults, **given}
        problems += [
            f"{key}: {options[key]!r} cannot mean the same here: {why}"
            for key, (allowed, why) in self.only.items()
            if options[key] not in allowed
        ]
        if problems:
            raise ConfigError(problems, name)
        carried = {target: options[key] for key, target in self.carried.items()}
        return {
            "critic": self.critic,
            "weight": self.factor(options),
            "options": {**carried, **self.made(options)},
        }


def _mean(why: str = "a loss is a mean here, so that its weight does not depend on the size of a crop") -> Options:
    return {"reduction": (("mean",), why)}


def _same(*keys: str) -> Mapping[str, str]:
    return {key: key for key in keys}


_CRITERIA: Final = (("l1", "l2", "charbonnier"), "known are l1, l2 and charbonnier")
_ON: Final = ((True,), "it is a loss, with its published weights")
_RANDOM: Final = "maps are thinned at random there; here at the same places each time"
_TWO: Final = (("charbonnier", "l1"), "pd and fd compare distributions: the critic fdl does, with options of its own")
_STATISTICS: Final = "statistics of windows have 11 taps of sigma 1.5 here, as published"


def _frequencies(factor: float) -> DropIn:
    options = {"alpha": 1.0, "patch_factor": 1, "ave_spectrum": True, "log_matrix": False, "batch_matrix": False}
    return DropIn("ffl", options, _same(*options), factor=lambda o: factor)


_PERCEPTUAL: Final = DropIn(
    "perceptual",
    {
        **{"layer_weights": None, "w_lambda": 0.01, "alpha": None, "criterion": "charbonnier", "num_proj_fd": 256},
        **{"phase_weight_fd": 1.0, "stride_fd": 1, "clip_min": 0},
    },
    _same("criterion"),
    {
        "criterion": _TWO,
        "alpha": ((None,), "only distributions have it"),
        "clip_min": ((0, 0.0), "nothing is clipped here"),
    },
    lambda o: {"layers": o["layer_weights"] or _LAYERS, "border": "replicate"},
)
_TRAINNER: Final[dict[str, DropIn]] = {
    "aesoploss": DropIn(
        "aesop",
        {"criterion": "l1", "scale": 4, "pretrain_network_ae": None},
        _same("criterion"),
        {
            "criterion": _CRITERIA,
            "scale": ((4,), "our auto-encoder shrinks by 4"),
            "pretrain_network_ae": ((None,), "our auto-encoder is another network; its file ships"),
        },
    ),
    "averageloss": DropIn("box-shrunk", {"criterion": "l1", "scale": 4}, _same("criterion", "scale")),
    "bicubicloss": DropIn("bicubic-shrunk", {"criterion": "l1", "scale": 4}, _same("criterion", "scale")),
    "charbonnierloss": DropIn("charbonnier", {"reduction": "mean", "eps": 1e-12}, _same("eps"), _mean()),
    "colorloss": DropIn("chroma", {"criterion": "l1", "scale": 4}, _same("criterion", "scale")),
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
            "as_loss": _ON,
            "load_weights": _ON,
            "resize_input": ((False,), "nothing is resized here"),
            "clip_min": ((0, 0.0), "nothing is clipped here"),
        },
    ),
    "fdloss": DropIn(
        "fdl",
        {"patch_size": 5, "stride": 1, "num_proj": 256, "model": "VGG", "phase_weight": 1.0},
        _same("patch_size", "stride", "num_proj", "phase_weight"),
        {"model": (("VGG", "vgg"), "its trunk is VGG19")},
    ),
    "ffloss": _frequencies(50.0),
    "fliploss": DropIn("flip", {"pixels_per_degree": 67.02064327658226}, _same("pixels_per_degree")),
    "gradientvarianceloss": DropIn(
        "gradient-variance", {"patch_size": 16, "criterion": "charbonnier"}, _same("patch_size", "criterion")
    ),
    "hsluvloss": DropIn(
        "hsluv",
        {
            **dict.fromkeys(("hue_weight", "saturation_weight", "lightness_weight"), 1 / 3),
            **{"criterion": "l1", "downscale_factor": 1},
        },
        _same("hue_weight", "saturation_weight", "lightness_weight", "criterion", "downscale_factor"),
    ),
    "l1loss": DropIn("charbonnier", {"reduction": "mean"}, only=_mean(), made=lambda o: {"criterion": "l1"}),
    "ldlloss": DropIn(
        "ldl", {"criterion": "l1"}, _same("criterion"), made=lambda o: {"constant": False}, sees_average=True
    ),
    "lumaloss": DropIn("luma", {"criterion": "l1"}, _same("criterion")),
    "mseloss": DropIn("charbonnier", {"reduction": "mean"}, only=_mean(), made=lambda o: {"criterion": "l2"}),
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
        _same("num_scale", "num_proj"),
        {
            "patch_size": ((11,), "patches have 11 pixels, as published"),
            "stride": ((1,), "every patch is seen, as published"),
            "c": ((3,), "images have three channels"),
        },
    ),
    "perceptualfp16loss": _PERCEPTUAL,
    "perceptualloss": _PERCEPTUAL,
}
_NEOSR: Final[dict[str, DropIn]] = {
    "L1Loss": _TRAINNER["l1loss"],
    "MSELoss": _TRAINNER["mseloss"],
    "HuberLoss": DropIn(
        "charbonnier",
        {"reduction": "mean", "delta": 1.0},
        only={**_mean(), "delta": ((1, 1.0), "Huber's loss turns at 1 here")},
        made=lambda o: {"criterion": "huber"},
    ),
    "dists_loss": DropIn(
        "dists",
        {"as_loss": True, "load_weights": True},
        only={"as_loss": _ON, "load_weights": _ON},
        made=lambda o: {"normalise": False},
    ),
    "fdl_loss": DropIn(
        "fdl",
        {
            **{"patch_size": 4, "stride": 1, "num_proj": 24, "model": "dinov2", "vgg_weights": None},
            **{"dino_layers": None, "dino_weights": None, "dino_norm": False, "phase_weight": 1.0},
        },
        _same("patch_size", "stride", "num_proj", "phase_weight"),
        {"model": (("vgg", "VGG"), "its trunk is VGG19; the default there is DINOv2 ViT-B/14, so say model: vgg")},
        lambda o: {"scales": o["vgg_weights"] or (0.5, 0.5, 1.0, 1.0, 1.0)},
        lambda o: 0.01,
    ),
    "ff_loss": _frequencies(1.0),
    "ldl_loss": DropIn(
        "ldl", {"criterion": "l1", "ksize": 7}, _same("criterion", "ksize"), made=lambda o: {"constant": False}
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
    "vgg_perceptual_loss": DropIn(
        "perceptual",
        {
            **{"layer_weights": None, "vgg_type": "vgg19", "use_input_norm": True, "range_norm": False},
            **{"criterion": "huber", "patchloss": False, "ipk": False, "patch_weight": 1.0},
        },
        {"criterion": "criterion", "use_input_norm": "normalise"},
        {
            "vgg_type": (("vgg19",), "its trunk is VGG19"),
            "range_norm": ((False,), "images lie in [0, 1]"),
            "criterion": (("huber", "l1", "l2"), "known are huber, l1 and l2; chc and pdl clip or compare otherwise"),
            "patchloss": ((False,), "there is no patch loss here; it sends no gradient there"),
            "ipk": ((False,), "there is no patch loss here; it sends no gradient there"),
        },
        lambda o: {"layers": o["layer_weights"] or _LAYERS},
    ),
}
_TABLES: Final[dict[Dialect, dict[str, DropIn]]] = {"trainner": _TRAINNER, "neosr": _NEOSR}


def known_names(dialect: Dialect) -> tuple[str, ...]:
    """The names of a host's losses that are here.

    Raises:
        ConfigError: if the host is none of them.
    """
    if dialect not in get_args(Dialect):
        raise ConfigError([f"host must be one of {', '.join(get_args(Dialect))}, got {dialect!r}"], "drop-in losses")
    return tuple(_TABLES[dialect])


def meaning_of(name: str, dialect: Dialect) -> DropIn:
    """What a host's loss means here.

    Raises:
        ConfigError: if there is nothing that means the same, naming what is near.
    """
    names = known_names(dialect)
    if name in ABSENT[dialect]:
        raise ConfigError([f"nothing here means the same as {name}: {ABSENT[dialect][name]}"], "drop-in losses")
    if name not in names:
        raise ConfigError([f"{dialect} has no loss {name!r} here{near(name, names)}"], "drop-in losses")
    return _TABLES[dialect][name]
