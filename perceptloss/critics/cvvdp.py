"""ColorVideoVDP through its own package: differences that people would see on a display, in JODs.

Mantiuk, Hanji, Ashraf, Asano, Chapiro: "ColorVideoVDP: A visual difference predictor for image, video and display
distortions", SIGGRAPH 2024. https://github.com/gfxdisp/ColorVideoVDP (MIT), the package cvvdp.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceptloss.card import Card, distance_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import ConfigError, PerceptlossError, near

__all__ = ["CVVDP", "ENTRIES"]

_BEST = 10.0


class CVVDP(Critic):
    """ColorVideoVDP in JODs, 10 for equal images; three quarters of people see a difference of 1. Higher is better.

    Built by `create_critic("package:cvvdp")`; computes in float32 whatever the images are.

    Args:
        card: Its card.
        display: A name of the package, which says how bright the display is, how large and how far.
        pixels_per_degree: Of the display, if not those of its name.

    Raises:
        PerceptlossError: if the package is not installed.
        ConfigError: if it does not know the display.
    """

    def __init__(self, card: Card, *, display: str = "standard_4k", pixels_per_degree: float | None = None) -> None:
        super().__init__(card)
        try:
            import pycvvdp
        except ImportError as error:
            raise PerceptlossError('ColorVideoVDP is a package of its own: pip install "perceptloss[cvvdp]"') from error
        problems = []
        displays = pycvvdp.utils.json2dict(pycvvdp.utils.config_files.find("display_models.json", []))
        if display not in displays:
            problems.append(f"the package cvvdp knows no display {display!r}{near(display, displays)}")
        if pixels_per_degree is not None and not pixels_per_degree > 0:
            problems.append(f"options.pixels_per_degree must be a number above 0, got {pixels_per_degree!r}")
        if problems:
            raise ConfigError(problems, card.name)
        self.display = {"display_name": display}
        if pixels_per_degree is not None:
            geometry = pycvvdp.vvdp_display_geometry((3840, 2160), ppd=pixels_per_degree)
            self.display["display_geometry"] = geometry
        self._metrics: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_metrics": {}}

    @torch.inference_mode(False)  # or a first score in a validation would keep later ones out of graphs
    def _metric(self, device: torch.device) -> Any:
        import pycvvdp

        if str(device) not in self._metrics:
            self._metrics[str(device)] = pycvvdp.cvvdp(**self.display, device=device, quiet=True)
        return self._metrics[str(device)]

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        images = (image.float().clamp(0, 1) for image in (x, given(y)))
        lost = self._metric(x.device).loss(*images, dim_order="BCHW")
        return (_BEST - lost).reshape(-1).to(x.dtype)

    @property
    def signature(self) -> str:
        """As of any critic, and which display and version of the package it is."""
        from importlib.metadata import version

        shown = "|".join(str(value) for value in self.display.values() if isinstance(value, str))
        return f"{super().signature}|{shown}|cvvdp:{version('cvvdp')}"


_CARD = distance_card(
    name="package:cvvdp",
    summary="Differences that people would see on a display, in JODs: 10 is none, 1 less is seen by three of four.",
    better="higher",
    bounds=(-100.0, _BEST),
    identity=_BEST,
    shape="hinge",
    domains=frozenset({"natural", "video"}),
    min_size=16,
    tiling="never",
    licence_code="MIT",
    paper="Mantiuk et al., ColorVideoVDP: A visual difference predictor for image, video and display distortions, "
    "SIGGRAPH 2024",
    source="https://github.com/gfxdisp/ColorVideoVDP, the package cvvdp 0.5.7",
    notes=(
        'the package itself, not a critic of ours: pip install "perceptloss[cvvdp]"; in float32 only',
        "of a 4K display at its usual distance, 75.4 pixels per degree; options display, pixels_per_degree",
    ),
)

ENTRIES = {"package:cvvdp": Entry(_CARD, CVVDP)}
