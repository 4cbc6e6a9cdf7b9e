"""`perceptloss doctor`: versions, devices, and which critics can be used here and now."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from perceptloss.cli.terminal import result, result_json
from perceptloss.output.tables import text

__all__ = ["add_parser"]

_PACKAGES = ("torch", "numpy", "safetensors", "pillow", "accelerate", "basicsr", "torchvision")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor", help="versions, devices, and which critics can be used here", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings; always 0, as this is a question and not a check."""
    findings = {
        "versions": _versions(),
        "devices": _devices(),
        "weights": _folders(),
        "critics": _critics(),
        "basicsr integration": _basicsr(),
    }
    if args.json:
        result_json(findings)
        return 0
    for title, facts in findings.items():
        result(f"{title}\n" + text((f"  {name}", value) for name, value in facts.items()))
    return 0


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    from perceptloss import __version__

    found = {"perceptloss": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
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
    from perceptloss.cli.show import weight_places
    from perceptloss.registry import _names, get_card

    found: dict[str, str] = {}
    for name in _names():
        try:
            places = weight_places(get_card(name))
        except Exception as error:
            found[name] = f"broken: {type(error).__name__}: {error}"
            continue
        missing = [file for file, path in places.items() if path is None]
        refused = [f"{file} {path}" for file, path in places.items() if path and path.startswith("refused")]
        if refused:
            found[name] = "; ".join(refused)
        elif missing:
            found[name] = f"weights missing: {', '.join(missing)} (perceptloss weights fetch {name})"
        else:
            found[name] = "ready"
    return found


def _basicsr() -> dict[str, Any]:
    try:
        import perceptloss.integrations.basicsr  # noqa: F401
    except Exception as error:
        return {"import": f"fails: {type(error).__name__}: {error}"}
    return {"import": "works"}
