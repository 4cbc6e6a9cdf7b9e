"""YAML that may come from anybody: a repeated key, a bomb of aliases, or endless nesting is an error in a sentence."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from reprlib import Repr
from typing import Any, Final

import yaml

from perceptloss.errors import ConfigError

__all__ = ["parse_yaml", "read_yaml", "shown"]

_MOST_BYTES: Final = 1 << 22
_MOST_VALUES: Final = 100_000  # with aliases written out
_DEEPEST: Final = 50
_MERGE: Final = "tag:yaml.org,2002:merge"
_LARGEST: Final = 2**64


class _Short(Repr):
    maxstring = maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < _LARGEST else f"a number of {x.bit_length()} bits"


def shown(value: object) -> str:
    """A value for a message, cut short."""
    return _Short().repr(value)


class _Loader(yaml.SafeLoader):
    """YAML in which a repeated key is an error, not the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected a name as a key, got {shown(key)}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and abs(value) >= _LARGEST:
                raise ValueError(f"expected whole numbers below 2^64, got one of {value.bit_length()} bits")
        except (ValueError, OverflowError) as error:  # a number of thousands of digits, the 99th of a month
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None
        return value


def parse_yaml(text: str) -> Any:
    """The value that a YAML text means.

    Raises:
        yaml.YAMLError: if it is none, repeats a key, is nested deeply, or says more with its aliases than is sensible.
    """
    _check_extent(text)
    return yaml.load(text, Loader=_Loader)


def _check_extent(text: str) -> None:
    """Look at a text's parts one by one, before anything is built of them."""
    sizes: dict[str, int] = {}  # values that an anchor stands for
    opened: list[str | None] = []  # anchors of the collections around
    counts = [0]  # values of them up to now
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size, anchor = 1, getattr(event, "anchor", None)
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(anchor)
            counts.append(1)
            if len(opened) > _DEEPEST:
                raise yaml.YAMLError(f"line {line}: nested more than {_DEEPEST} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, anchor = counts.pop(), opened.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor in opened:
                raise yaml.YAMLError(f"line {line}: alias *{anchor} holds itself")
            size = sizes.get(str(anchor), 1)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor is not None:
            sizes[anchor] = size
        counts[-1] += size
        if counts[-1] > _MOST_VALUES:
            raise yaml.YAMLError(f"line {line}: more than {_MOST_VALUES} values, aliases written out")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: if it cannot be read, is no mapping, repeats a key, or is larger than a configuration can be.
    """
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            raise ConfigError(["expected a file, got a folder, pipe or device"], f"file {path}")
        if os.path.getsize(file) > _MOST_BYTES:
            raise ConfigError([f"expected at most {_MOST_BYTES} bytes, got {os.path.getsize(file)}"], f"file {path}")
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([str(error)], f"file {path}") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError([f"expected a mapping of options, got {type(content).__name__}"], f"file {path}")
    return content or {}
