"""A time limit for regular expressions: `(a+)+b` takes longer than the universe for a name of thirty letters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["too_slow"]

SECONDS: Final = 5
_REPEATS: Final = re.compile(r"[*+]|\{\d*,")
_TRIAL: Final = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.sub(f"(?:{pattern})$", "", name, count=1)
    print(flush=True)
"""


def too_slow(patterns: Sequence[str], source: object) -> list[str]:
    """The problem of an expression that cannot be done with the names of a source in a few seconds, if there is one.

    Only expressions that repeat twice can be slow; they are tried in a process that can be stopped.
    """
    risky = [pattern for pattern in patterns if len(_REPEATS.findall(pattern)) > 1]
    names = sorted({Path(name).stem for name in _names(source)}) if risky else []
    if not names or not sys.executable:
        return []
    command = [sys.executable, "-I", "-S", "-c", _TRIAL]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as trial:
        try:
            trial.communicate(json.dumps([risky, names]), timeout=SECONDS)
        except subprocess.TimeoutExpired:
            trial.kill()
            done = len(trial.communicate()[0].splitlines())
            return [
                f"--strip {risky[min(done, len(risky) - 1)]!r} is not done with {len(names)} names in {SECONDS} s; "
                "repeat nothing inside of a repetition"
            ]
    return []


def _names(source: object) -> Iterable[str]:
    if not isinstance(source, (str, os.PathLike)):
        return [os.path.basename(path) for path in source] if isinstance(source, Sequence) else []
    path = Path(source)
    if path.is_dir():
        return [name for _, _, files in os.walk(path, followlinks=True) for name in files]
    if path.is_file() and path.suffix.lower() == ".txt":
        return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [path.name]
