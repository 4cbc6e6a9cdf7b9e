"""A `ModelCard` as Markdown, equal for equal facts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perceptloss.output.tables import markdown
from perceptloss.teach.cards.agreement import agreement, under_attack
from perceptloss.teach.cards.facts import ModelCard

__all__ = ["render"]


def render(card: ModelCard) -> str:
    """The card as Markdown, equal for equal facts; ends in a new line."""
    blocks = [
        f"# {card.name}\n\n{card.summary.strip()}\n",
        _facts(card),
        "## Data\n\n" + _bullets([f"{s.name}: {s.use}. {s.licence}. {s.attribution}" for s in card.data]),
        "## Training\n\n" + _training(card),
        "## Agreement\n\n" + agreement(card.name, card.figures),
        *(["## Under attack\n\n" + under_attack(card.attacks)] if card.attacks else []),
        "## Held out\n\n"
        f"- degradations: {_listed(card.held_out_families)}\n- sources: {_listed(card.held_out_sources)}\n",
        "## Known failures\n\n" + _bullets(card.failures),
    ]
    if card.notes:
        blocks.append("## Notes\n\n" + _bullets(card.notes))
    return "\n".join(blocks)


def _facts(card: ModelCard) -> str:
    judges = "with a reference" if card.kind.endswith("fr") else "without a reference"
    rows = [
        ["kind", f"{card.kind}: judges {'a stereo pair ' if card.kind.startswith('stereo') else ''}{judges}"],
        ["direction", f"{card.better} is better"],
        ["fidelity", card.fidelity],
        ["licence", card.licence],
        ["parameters", f"{card.parameters:,}"],
        ["one score of 256x256", f"{_three(card.gflops)} GFLOPs"],
        ["file", f"`{card.file}`"],
        ["sha256", f"`{card.sha256}`"],
    ]
    return markdown(["fact", "value"], rows, "l")


def _training(card: ModelCard) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    facts = [
        f"configuration: sha256 `{card.configuration}`",
        f"seed: {card.seed}",
        f"steps: {card.steps:,}",
        f"time: {_duration(card.seconds)} on {card.hardware}",
        f"versions: {versions}",
    ]
    return f"```sh\n{card.command.strip()}\n```\n\n" + _bullets(facts)


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {' '.join(line.split())}\n" for line in lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none: nothing here says how it does on what it never saw"


def _three(number: float) -> str:
    """Three significant digits, never in scientific form."""
    digits = max(0, 2 - math.floor(math.log10(number)))
    return f"{number:,.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or f"{seconds:.2g} s"
