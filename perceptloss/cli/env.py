"""`perceptloss env`: versions, devices, and which critics can be used here and now."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.util import find_spec
from typing import Final

from perceptloss.cli.list import known_cards
from perceptloss.cli.show import weight_places
from perceptloss.cli.terminal import result, result_json
from perceptloss.output.tables import text
from perceptloss.output.versions import versions

__all__ = ["add_parser"]

_PACKAGES: Final = ("torch", "numpy", "safetensors", "pillow", "accelerate", "basicsr", "torchvision")
_DRIVERS: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, either under Windows


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "env", help="versions, devices, and which critics can be used here", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--imports", action="store_true", help="also import BasicSR, which takes seconds")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; always 0, as this is a question and not a check."""
    findings = {
        "versions": versions(*_PACKAGES),
        "devices": _devices(),
        "weights": _folders(),
        "critics": _critics(),
        "basicsr integration": _basicsr(try_it=args.imports),
    }
    if args.json:
        result_json(findings)
        return 0
    for title, facts in findings.items():
        result(f"{title}\n" + text((f"  {name}", value) for name, value in facts.items()))
    return 0


def _devices() -> dict[str, str]:
    found = {"cpu": f"{platform.machine()}, {os.cpu_count()} cores"}
    if not any(map(os.path.exists, _DRIVERS)) and sys.platform == "linux":
        return found  # without loading torch, which takes longer than everything else
    import torch

    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _folders() -> dict[str, str]:
    from perceptloss.errors import WeightsError
    from perceptloss.weights.manifest import home
    from perceptloss.weights.search import cache_folder

    try:
        own = str(home() or "not set")
    except WeightsError as error:
        own = str(error)
    return {"PERCEPTLOSS_HOME": own, "cache": str(cache_folder())}


def _critics() -> dict[str, str]:
    """Usable now without a network, or what is missing; a broken third-party critic breaks no other."""
    from perceptloss.weights.places import how_to_fetch

    cards, found = known_cards()
    for card in cards:
        places = weight_places(card)
        missing = [file for file, path in places.items() if path is None]
        refused = [f"{file} {path}" for file, path in places.items() if path and path.startswith("refused")]
        if refused:
            found[card.name] = "; ".join(refused)
        elif missing:
            found[card.name] = f"weights missing: {', '.join(missing)} ({how_to_fetch(card.name, card.weights)})"
        else:
            found[card.name] = "ready"
    return dict(sorted(found.items()))


def _basicsr(*, try_it: bool) -> dict[str, str]:
    if find_spec("basicsr") is None:
        return {"basicsr": "not installed; it installs on Python 3.10 to 3.12"}
    if not try_it:
        return {"import": "not tried; --imports does"}
    try:
        import perceptloss.integrations.basicsr  # noqa: F401
    except Exception as error:
        return {"import": f"fails: {type(error).__name__}: {error}"}
    return {"import": "works"}
