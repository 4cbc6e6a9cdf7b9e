"""A module that a parent's checkpoint does not know of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

__all__ = ["Hidden"]


class Hidden(nn.Module):
    """Adds no key to the `state_dict` of the modules that hold it, and wants none when they load.

    What it must remember goes by `state` and `load_state`. Called on itself, `state_dict` and `load_state_dict` do the
    same in tensors, as hosts want it that save a list of objects (`Accelerator.register_for_checkpointing`).
    """

    def state(self) -> dict[str, Any]:
        """A step and a mapping of counts `skipped`."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        raise NotImplementedError

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """`state` as tensors; as a part of another module, what was there already."""
        destination, prefix = (*args, destination, prefix)[:2] if args else (destination, prefix)
        if destination is not None or prefix:
            return {} if destination is None else destination
        state = self.state()
        counts = {f"skipped.{label}": torch.tensor(count) for label, count in state["skipped"].items()}
        more = {key: value for key, value in state.items() if key not in ("step", "skipped")}
        return {"step": torch.tensor(state["step"]), **counts, **more}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> _IncompatibleKeys:
        """Go on from what `state_dict` gave, here or in earlier versions, or `state`."""
        state_dict = next((value for key, value in state_dict.items() if key.endswith("_extra_state")), state_dict)
        if "step" in state_dict and "skipped" not in state_dict:
            prefix = "skipped."
            found = {key.removeprefix(prefix): int(n) for key, n in state_dict.items() if key.startswith(prefix)}
            more = {key: state_dict[key] for key in ("shares", "budget", "joint") if key in state_dict}
            state_dict = {"step": int(state_dict["step"]), "skipped": found, **more}
        self.load_state(state_dict)
        return _IncompatibleKeys([], [])

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Take nothing: neither missing nor unexpected, whatever a checkpoint was made with."""
