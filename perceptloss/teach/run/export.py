"""The end of a run: the exported file examined beside its peers, results.json, and the model card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from perceptloss import Critic
from perceptloss.output.files import write_atomically
from perceptloss.output.tables import markdown
from perceptloss.runs.meters import run_facts
from perceptloss.runs.state import finite
from perceptloss.teach.cards.agreement import under_attack as attack_table
from perceptloss.teach.cards.facts import Origin, metadata
from perceptloss.teach.cards.markdown import render
from perceptloss.teach.exams.attacks import attacked
from perceptloss.teach.exams.evaluate import examine
from perceptloss.teach.run.critic import build_critic
from perceptloss.teach.run.describe import MEASURES, PARTS, attacked_in, complete, describe, interval_of
from perceptloss.teach.run.options import CardText, CriticOptions, Val
from perceptloss.teach.run.saving import stamp
from perceptloss.teach.run.setup import Material
from perceptloss.weights.download import sha256_of

__all__ = [
    "STARTING",
    "card_problems",
    "conclude",
    "figures_table",
    "origin_in",
    "origin_of",
    "verdict",
]

STARTING = "starting weights"


def origin_of(
    argv: Sequence[str], config_hash: str, seed: int, progress: Mapping[str, Any], accelerator: Accelerator
) -> Origin:
    """Of the run that just ended."""
    facts, world = run_facts(accelerator), accelerator.num_processes
    count = f"--num_processes {world} " if world > 1 else ""
    return Origin(
        command=f"accelerate launch {count}recipes/critic.py {shlex.join(argv)}",
        configuration=config_hash,
        seed=seed,
        steps=progress["step"],
        seconds=progress["seconds"],
        hardware=f"{facts['device']}, {world} process{'es' if world > 1 else ''}",
        versions={n: str(facts[n]) for n in ("perceptloss", "torch", "accelerate")} | {"numpy": np.__version__},
    )


def origin_in(folder: Path) -> Origin | None:
    """Of the finished run in a folder; None if there is none."""
    results = folder / "results.json"
    facts = json.loads(results.read_text(encoding="utf-8"))["origin"] if results.exists() else None
    return None if facts is None else Origin(**facts)


def card_problems(card: CardText) -> list[str]:
    """What a model card would lack; found before the first step rather than after."""
    if not card.write:
        return []
    needed = {"summary": card.summary, "licence": card.licence, "known_failures": card.known_failures}
    hint = "a model card needs it (--card.write false: no card)"
    problems = [f"card.{key}: {hint}" for key, value in needed.items() if not value]
    problems += [] if card.sources else [f"card.sources: {hint}"]
    for i, source in enumerate(card.sources):
        lacking = [k for k in ("folder", "licence", "attribution") if not (isinstance(source, dict) and source.get(k))]
        problems += [f"card.sources[{i}]: lacks {key}" for key in lacking]
        known = ("folder", "name", "licence", "attribution", "use")
        unknown = [key for key in source if key not in known] if isinstance(source, dict) else []
        problems += [f"card.sources[{i}]: unknown key {key!r}; known: {', '.join(known)}" for key in unknown]
    return problems


def conclude(
    accelerator: Accelerator,
    folder: Path,
    file: Path,
    own: CriticOptions,
    card: CardText,
    val: Val,
    before: Mapping[str, Any] | None,
    peers: Mapping[str, Critic],
    material: Material,
    origin: Origin | None,
) -> str:
    """Examine the exported file and its peers; write the model card and, last, results.json; return a table.

    Call on all processes.

    Args:
        accelerator: Of the run.
        folder: Of the run.
        file: The weights.
        own: The critic.
        card: What the model card says beside figures.
        val: How it was examined.
        before: Exams of the weights it started from, if it did from any.
        peers: Critics to compare with.
        material: With the exams.
        origin: Of the weights; without it there is no model card.
    """
    options = {"limit": 0, "seed": 0, "rounds": val.rounds}
    critic = build_critic(replace(own, weights=str(file), fixed=()), 0).freeze().to(accelerator.device)
    systems = {own.name: critic, **{n: p for n, p in peers.items() if n != own.name}}
    found = {n: examine(accelerator, c, material.exams, **options) for n, c in systems.items()}
    attackable = {own.name: critic}
    if before is not None and val.attacks:
        attackable[STARTING] = build_critic(replace(own, fixed=()), 0).freeze().to(accelerator.device)
    attacks = attacked(accelerator, attackable, material.exams, val.attacks, val.rounds)
    if not accelerator.is_main_process:
        return ""
    if before is not None:
        found = {STARTING: dict(before), **found}
    if card.write and origin is not None:
        stamp(file, metadata(describe(critic, file, origin, card, material)))
    exams = {
        exam.name: {
            "about": exam.about,
            "images": len(exam.target),
            "unseen_families": sorted(exam.unseen),
            "figures": {name: result[exam.name] for name, result in found.items()},
        }
        for exam in material.exams
    }
    content = {
        "recipe": "critic",
        "critic": own.name,
        "file": file.name,
        "sha256": sha256_of(file),
        "signature": critic.signature,
        "exams": exams,
        "attacks": attacks,
        "origin": None if origin is None else origin.__dict__,
        **run_facts(accelerator),
    }
    text = figures_table(found) + ("" if before is None else verdict(before, found[own.name]))
    text += f"\n{attack_table(attacked_in(attacks))}" if attacks else ""
    if card.write and origin is not None:
        described = describe(critic, file, origin, card, material)
        described = complete(described, file, exams, attacks, val, material.teachers)
        write_atomically(file.with_suffix(".md"), render(described))
    elif card.write:
        text += f"\nNo model card: {folder} holds no results.json that says how the weights came about.\n"
    write_atomically(folder / "results.md", text)
    write_atomically(folder / "results.json", json.dumps(finite(content), indent=1, allow_nan=False))
    return text


def figures_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What `examine` gave of some critics, a column for each; a row per exam, part and figure, without families."""
    named: dict[tuple[str, str, str], None] = {}  # not all critics have all figures
    for exams in found.values():
        for exam, parts in exams.items():
            for part, figures in parts.items():
                named |= dict.fromkeys((exam, part, figure) for figure in figures)
    rows = [
        [
            f"{exam}, {PARTS[part]}",
            MEASURES.get(figure, figure),
            *(_text(exams[exam].get(part, {}).get(figure)) for exams in found.values()),
        ]
        for exam, part, figure in named
        if part in PARTS
    ]
    return markdown(["exam", "figure", *found], rows)


def verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A sentence if the taught weights agree less with an exam than those they started from, else nothing."""
    with_targets = [exam for exam in before if "srcc" in before[exam]["all"]]
    pairs = {exam: [found[exam]["all"]["srcc"]["value"] for found in (before, after)] for exam in with_targets}
    worse = [exam for exam, (a, b) in pairs.items() if a is not None and (b is None or b < a)]
    if not worse:
        return ""
    return (
        f"\nOn {', '.join(worse)} the taught weights agree less (SRCC) than those that they started from: "
        "stay with those, or teach from more images.\n"
    )


def _text(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "—"
    interval = interval_of(figure)
    return f"{figure['value']:.3f}" if interval is None else str(interval)
