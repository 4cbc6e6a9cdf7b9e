"""Which losses of which host are here."""

from __future__ import annotations

from typing import Final, get_args

from perceptloss.errors import ConfigError, near
from perceptloss.integrations.dropin.absent import ABSENT, Dialect
from perceptloss.integrations.dropin.drop_in import DropIn
from perceptloss.integrations.dropin.neosr import NEOSR
from perceptloss.integrations.dropin.trainner import TRAINNER

__all__ = ["known_names", "meaning_of"]

_TABLES: Final[dict[Dialect, dict[str, DropIn]]] = {"trainner": TRAINNER, "neosr": NEOSR}


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
