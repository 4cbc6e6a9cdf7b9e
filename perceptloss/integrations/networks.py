"""Restorers by the name of their class: ours of stereo pairs, spandrel's, its companion's for stricter licences."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import nn

from perceptloss.networks import restorers

__all__ = ["find_network"]

_OURS = ("IPASSR", "NAFSSR", "StereoCompact")
_PACKAGES = ("spandrel", "spandrel_extra_arches")  # permissive licences; licences that each network says for itself


def find_network(name: str) -> type[nn.Module] | None:
    """The class of a network of ours or of an installed package, to be built with keyword arguments; or None.

    Args:
        name: Of its class, such as `HAT`, `SPAN`, `NAFNet` of spandrel, `Restormer` of spandrel_extra_arches.
    """
    if name in _OURS:
        found: type[nn.Module] = getattr(restorers, name)
        return found
    for package in _PACKAGES:
        if name.isidentifier() and find_spec(package) and find_spec(home := f"{package}.architectures.{name}"):
            theirs = getattr(import_module(home), name, None)
            if isinstance(theirs, type) and issubclass(theirs, nn.Module):
                return theirs
    return None
