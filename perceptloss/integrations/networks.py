"""Restorers of other packages by the name of their class: spandrel's, and of its companion for stricter licences."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import nn

__all__ = ["find_network"]

_PACKAGES = ("spandrel", "spandrel_extra_arches")  # permissive licences; licences that each network says for itself


def find_network(name: str) -> type[nn.Module] | None:
    """The class of a network that an installed package has, to be built with keyword arguments; None if none has it.

    Args:
        name: Of its class, such as `HAT`, `SPAN`, `NAFNet` of spandrel, `Restormer` of spandrel_extra_arches.
    """
    for package in _PACKAGES:
        if name.isidentifier() and find_spec(package) and find_spec(home := f"{package}.architectures.{name}"):
            found = getattr(import_module(home), name, None)
            if isinstance(found, type) and issubclass(found, nn.Module):
                return found
    return None
