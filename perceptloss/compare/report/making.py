"""How results were made: everything that is needed to repeat them, as rows of a table."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from perceptloss import __version__
from perceptloss.compare.results import Results
from perceptloss.output.tables import counted

__all__ = ["critic_rows", "making"]


def making(results: Results) -> Iterator[tuple[str, str]]:
    """Name and value of each fact."""
    about = results.provenance
    yield (
        "scored",
        f"{about.get('created', 'unknown')} on {about.get('device', 'unknown')}, {about.get('platform', '')}",
    )
    versions = about.get("versions", {})
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if command := about.get("command"):
        yield "command", shlex.join(command)
    yield "images", counted(len(results.images), "image")
    for key, lacking in results.left_out.items():
        yield "left out", f"{key} (not in {', '.join(lacking)})"
    for name, facts in about.get("inputs", {}).items():
        yield f"files of {name}", f"{facts.get('path', '')}: sha256 of all {facts.get('sha256', '')}"
    settings = {key: value for key, value in results.settings.items() if key != "sources"}
    yield "settings", ", ".join(f"{key} {value}" for key, value in settings.items())
    analysis = results.analysis
    yield (
        "analysis",
        f"{analysis.rounds:,} resamples, seed {analysis.seed}, level {analysis.level:g}"
        + (f", {counted(len(set(analysis.groups.values())), 'group')}" if analysis.groups else ""),
    )
    for key, value in about.get("run", {}).items():
        yield f"run: {key}", str(value)
    yield "report", f"perceptloss {__version__}"


def critic_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Of each critic: header, role, signature, licences of code and weights, and paper."""
    for column in results.critics:
        card = column.card
        role = {"train": "trained on", "judge": "only watched"}.get(column.role or "", "not stated")
        licence = " / ".join(filter(None, (str(card.get("licence_code", "")), card.get("licence_weights"))))
        yield column.header, role, column.signature, licence, str(card.get("paper", ""))
