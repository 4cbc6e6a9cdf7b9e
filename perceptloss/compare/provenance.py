"""Where and from what results came: the part of them that differs between equal runs."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from perceptloss.output.versions import versions

if TYPE_CHECKING:
    from perceptloss.compare.plan import Plan

__all__ = ["describe_inputs", "provenance"]


def describe_inputs(plan: Plan) -> dict[str, Any]:
    """Per set: where it is, how many images were used, and one hash over their keys and bytes."""
    facts = {}
    for position, (name, source) in enumerate(plan.sources.items()):
        digest = hashlib.sha256()
        for record in plan.images:
            file = (*record.outputs, record.reference)[position]
            digest.update(f"{record.key}\0{file.digest if file else ''}\n".encode("utf-8", "surrogateescape"))
        path = Path(source)
        folder = path.resolve().as_posix() if path.exists() else source
        facts[name] = {"path": folder, "images": len(plan.images), "sha256": digest.hexdigest()}
    return facts


def provenance(device: torch.device, command: Sequence[str], inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Time, command, device, platform, versions and inputs of a run, as plain JSON types."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device),
        "platform": platform.platform(),
        "versions": {**versions("torch", "numpy", "pillow"), "torch": torch.__version__},
        "inputs": dict(inputs or {}),
    }
