"""Which images belong together and are no independent evidence: scenes, clips, persons."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from perceptloss.compare.csv_files import key_of, read_table, unquoted
from perceptloss.compare.strip import too_slow
from perceptloss.errors import ConfigError, some

__all__ = ["read_groups"]


def read_groups(source: str, keys: Sequence[str]) -> dict[str, str]:
    """Group of each image.

    Args:
        source: A `.csv` with the columns `image` and `group`, or a regular expression that is found in the keys: its
            first group, or all that it matches, names the group.
        keys: Of the images that are compared; a file may hold others too.

    Raises:
        ConfigError: listing images without a group, or with two; or if all are in one.
    """
    known = frozenset(keys)
    is_file = source.lower().endswith(".csv") or os.path.isfile(source)
    groups, problems = _from_file(source, known) if is_file else _from_names(source, keys)
    if lacking := [key for key in keys if key not in groups]:
        problems.append(f"no group for {some(map(repr, lacking))}")
    elif len(keys) > 1 and len(set(groups.values())) == 1 and not problems:
        problems.append(f"all {len(keys)} images are in the group {next(iter(groups.values()))!r}: none can be drawn")
    if problems:
        raise ConfigError(problems, f"--group {source}")
    return groups


def _from_file(path: str, keys: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    table = read_table(path, ("image", "group"))
    groups: dict[str, str] = {}
    problems = []
    for line, row in table.rows:
        key, group = key_of(table.cell(row, "image"), keys), unquoted(table.cell(row, "group"))
        if not group:
            problems.append(f"line {line} names no group")
        elif key is not None and groups.setdefault(key, group) != group:
            problems.append(f"{key!r} is in two groups, {groups[key]!r} and {group!r}")
    return groups, problems


def _from_names(pattern: str, keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        return {}, [f"neither a .csv nor a regular expression: {error}"]
    if problems := too_slow([pattern], list(keys)):
        return {}, [problem.removeprefix("--strip ") for problem in problems]
    found = {key: match for key in keys if (match := expression.search(key))}
    groups = {key: match[1] if expression.groups else match[0] for key, match in found.items()}
    return {key: group for key, group in groups.items() if group}, []
