"""What BasicSR 1.4.2 needs to be imported and resumed with current torch and torchvision."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

__all__ = ["install", "load_resume_state"]

_MISSING = "torchvision.transforms.functional_tensor"  # removed in torchvision 0.17


class _FunctionalTensor(MetaPathFinder, Loader):
    """Provides the one function that BasicSR takes from a module which torchvision removed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == _MISSING else None

    def exec_module(self, module: ModuleType) -> None:
        from torchvision.transforms.functional import rgb_to_grayscale

        vars(module)["rgb_to_grayscale"] = rgb_to_grayscale


def install() -> None:
    """Make `import basicsr` work; harmless to repeat.

    The module is offered at the end of the import path, so that a genuine one wins.
    """
    if not any(type(finder).__name__ == _FunctionalTensor.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_FunctionalTensor())


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Stand-in for `basicsr.train.load_resume_state`.

    The original asks for the current GPU, also on machines without one, and looks for states
    below the working directory even if the experiment lives elsewhere.

    Args:
        opt: BasicSR's options; `path.resume_state` is set by automatic resuming.

    Returns:
        The training state on the CPU (optimizers move it to their parameters), or None.
    """
    from basicsr.utils import check_resume

    if opt["auto_resume"]:
        folder = Path(opt["path"]["training_states"])
        states = sorted(folder.glob("*.state"), key=lambda file: float(file.stem))
        if not states:
            return None
        opt["path"]["resume_state"] = str(states[-1])
    path = opt["path"].get("resume_state")
    if not path:
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    check_resume(opt, state["iter"])
    return state
