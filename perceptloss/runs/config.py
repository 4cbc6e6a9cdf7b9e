"""Typed options: one dataclass tree gives the YAML keys, the command line, the checks and the help."""

from __future__ import annotations

import dataclasses
import operator
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from perceptloss.errors import ConfigError, near, some
from perceptloss.runs.yaml_files import parse_yaml, read_yaml, shown

__all__ = [
    "HelpRequested",
    "differences",
    "dump",
    "flatten",
    "from_mapping",
    "help_text",
    "load",
    "option",
    "read_yaml",
]

T = TypeVar("T")
_LARGEST = {int: 2**64, float: sys.float_info.max}
_NONE: Mapping[str, Any] = types.MappingProxyType({})
_LIMITS = {"at least": operator.ge, "above": operator.gt, "below": operator.lt}


class HelpRequested(Exception):
    """`--help` was on the command line."""


def option(
    default: Any, meaning: str, *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> Any:
    """A field of a configuration, with what its help and its check need."""
    limits = {"at least": at_least, "above": above, "below": below}
    metadata = {"help": meaning, "limits": {k: v for k, v in limits.items() if v is not None}}
    if isinstance(default, (dict, list)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def load(cls: type[T], argv: Sequence[str], defaults: Mapping[str, Any] = _NONE) -> T:
    """Build a configuration: defaults, then `--config FILE`, then `--key value` or `--key=value`, the last one winning.

    Args:
        cls: The tree.
        argv: Command line.
        defaults: By dotted key, instead of those of the tree; they are not checked.

    Raises:
        HelpRequested: if `-h` or `--help` is given.
        ConfigError: with every unknown key and every bad value of the file and the command line.
    """
    problems: list[str] = []
    texts = _parse_argv(argv, problems)
    file = str(texts.pop("config", ""))
    given = _given(cls, read_yaml(file), file, problems) if file else {}
    known = {key: hint for key, hint, _ in _leaves(cls)}
    for key, text in texts.items():
        value = _from_text(text, known[key], key, problems) if key in known else text
        given[key] = (value, "command line")
    return _checked(cls, given, problems, defaults)


def from_mapping(cls: type[T], content: Mapping[str, Any], source: str = "mapping") -> T:
    """Build a configuration from what `read_yaml` returns, with the checks of `load`."""
    problems: list[str] = []
    return _checked(cls, _given(cls, content, source, problems), problems)


def _given(cls: type[Any], content: Mapping[str, Any], source: str, problems: list[str]) -> dict[str, tuple[Any, str]]:
    given: dict[str, tuple[Any, str]] = {}
    for key, value in _flat(cls, content):
        if key in given:
            problems.append(f"{key}: given twice, whole and as {key!r} ({source})")
        given[key] = (value, source)
    return given


def _checked(
    cls: type[T], given: Mapping[str, tuple[Any, str]], problems: list[str], defaults: Mapping[str, Any] = _NONE
) -> T:
    known = {key: hint for key, hint, _ in _leaves(cls)}
    values: dict[str, Any] = {}
    for key, (value, source) in given.items():
        if key in known:
            found: list[str] = []
            values[key] = _convert(value, known[key], found)
            problems += [f"{key}: {p} ({source})" for p in found]
        else:
            inside = [name for name in known if name.startswith(f"{key}.")]
            problem = (
                f"{key}: expected a mapping of options, got {shown(value)}; it has {some(inside)}" if inside else ""
            )
            problems.append(f"{problem or f'unknown option {key!r}{near(key, known, 1)}'} ({source})")
    for key, _, spec in _leaves(cls):
        problems += [f"{key}: {p} ({given[key][1]})" for p in _outside(values.get(key), spec)]
    if problems:
        raise ConfigError(problems, "options; --help lists them")
    return _filled(cls(), {**defaults, **values})


def _parse_argv(argv: Sequence[str], problems: list[str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            raise HelpRequested
        if not word.startswith("--"):
            problems.append(f"unexpected {word!r} on the command line; options are written --key value")
            continue
        key, equals, value = word[2:].partition("=")
        has_value = bool(equals) or (bool(rest) and not rest[0].startswith("--"))
        found[key] = value if equals else rest.pop(0) if has_value else True
    return found


def _leaves(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    hints = get_type_hints(cls)
    for spec in fields(cls):
        hint = hints[spec.name]
        if is_dataclass(hint):
            yield from _leaves(cast(type[Any], hint), f"{prefix}{spec.name}.")
        else:
            yield prefix + spec.name, hint, spec


def _flat(cls: type[Any], content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(cls)
    for key, value in content.items():
        section = hints.get(key)
        if is_dataclass(section) and value is None:
            continue  # all its lines are comments
        if is_dataclass(section) and isinstance(value, Mapping):
            yield from _flat(cast(type[Any], section), value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _from_text(text: str | bool, hint: Any, key: str, problems: list[str]) -> Any:
    if isinstance(text, bool):
        return text
    is_text = hint in (str, str | None) or any(get_origin(h) is Literal for h in (hint, *get_args(hint)))
    if is_text or (hint == tuple[str, ...] and not text.startswith("[")):
        return None if text in ("null", "none") and type(None) in get_args(hint) else text
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        problems.append(f"{key}: {shown(text)} is not valid YAML: {str(error).splitlines()[0]} (command line)")
        return None


def _convert(value: Any, hint: Any, problems: list[str]) -> Any:
    """The value as its type asks, or a problem."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        for option_hint in options:
            found: list[str] = []
            converted = _convert(value, option_hint, found)
            if not found:
                return converted
        problems.append(f"expected {' or '.join(map(_type_name, options))}, got {shown(value)}")
        return value
    if origin is Literal:
        if value is False and "no" in args:  # YAML 1.1 reads an unquoted `no` as false
            return "no"
        if value not in args:
            problems.append(f"expected one of {', '.join(map(str, args))}, got {shown(value)}")
    elif origin is tuple:
        return _convert_tuple(value, args, problems)
    elif origin in (dict, list):
        if not isinstance(value, origin):
            problems.append(f"expected {_type_name(hint)}, got {shown(value)}")
    elif hint in (int, float):
        return _convert_number(value, hint, problems)
    elif not isinstance(value, hint):
        problems.append(f"expected {_type_name(hint)}, got {shown(value)}")
    return value


def _convert_tuple(value: Any, args: tuple[Any, ...], problems: list[str]) -> tuple[Any, ...]:
    is_open = args[-1] is Ellipsis
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if not is_open and len(items) != len(args):
        problems.append(f"expected {len(args)} values, got {shown(value)}")
        return ()
    return tuple(_convert(item, args[0 if is_open else i], problems) for i, item in enumerate(items))


def _convert_number(value: Any, kind: type, problems: list[str]) -> Any:
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST[kind]
    if not is_number or (kind is int and value != int(value)):
        problems.append(f"expected {_type_name(kind)}, got {shown(value)}")
        return value
    return kind(value)


def _outside(value: Any, spec: dataclasses.Field[Any]) -> list[str]:
    limits = spec.metadata.get("limits", {})
    numbers = [n for n in (value if isinstance(value, tuple) else (value,)) if isinstance(n, (int, float))]
    broken = any(not _LIMITS[name](n, limit) for n in numbers for name, limit in limits.items())
    return [f"must be {_limit_text(limits)}, got {shown(value)}"] if broken else []


def _limit_text(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in limits.items())


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else _type_name(a) for a in args)
    if origin is tuple:
        return (
            f"one or more of {_type_name(args[0])}" if args[-1] is Ellipsis else f"{len(args)} of {_type_name(args[0])}"
        )
    return {dict: "a mapping", list: "a list"}.get(origin or hint) or names.get(hint) or str(hint)


def _filled(default: T, values: Mapping[str, Any], prefix: str = "") -> T:
    changed: dict[str, Any] = {}
    for spec in fields(default):  # type: ignore[arg-type]
        key, old = prefix + spec.name, getattr(default, spec.name)
        if is_dataclass(old):
            changed[spec.name] = _filled(old, values, f"{key}.")
        elif key in values:
            changed[spec.name] = values[key]
    return dataclasses.replace(default, **changed)  # type: ignore[type-var]


def help_text(cls: type[Any], usage: str) -> str:
    """Every option with its type, range, meaning and default."""
    default = flatten(cls())
    lines = [usage, "", "--config FILE", "    YAML file of options; the command line wins over it", ""]
    section = ""
    for key, hint, spec in _leaves(cls):
        if key.rpartition(".")[0] != section:
            section = key.rpartition(".")[0]
            lines += ["", f"[{section}]"]
        limits = _limit_text(spec.metadata.get("limits", {}))
        kind = _type_name(hint) + (f", {limits}" if limits else "")
        text = yaml.safe_dump(default[key], default_flow_style=True, sort_keys=False, width=10**6)
        text = text.strip().removesuffix("...").strip()
        lines += [f"--{key}  ({kind}; default {text})", f"    {spec.metadata['help']}"]
    return "\n".join(lines)


def flatten(config: Any) -> dict[str, Any]:
    """Dotted key to plain value, mappings of options kept whole."""
    return {key: _plain(operator.attrgetter(key)(config)) for key, _, _ in _leaves(type(config))}


def dump(config: Any) -> str:
    """The whole configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None, width=120)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {spec.name: _plain(getattr(value, spec.name)) for spec in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def differences(old: Any, new: Any, ignored: Sequence[str] = ()) -> list[str]:
    """Options that differ between two configurations, as `key: old -> new`; `ignored` are prefixes."""
    before, after = flatten(old), flatten(new)
    changed = [key for key in after if before.get(key) != after[key] and not key.startswith(tuple(ignored))]
    return [f"{key}: {before.get(key)!r} -> {after[key]!r}" for key in changed]
