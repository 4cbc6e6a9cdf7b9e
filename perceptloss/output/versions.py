"""Versions of what a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from perceptloss import __version__

__all__ = ["versions"]


def versions(*packages: str) -> dict[str, str]:
    """Of perceptloss, Python and installed packages; none of these is imported."""
    found = {"perceptloss": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
