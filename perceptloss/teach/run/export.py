"""The end of a run: the exported file examined beside its peers, results.json, and the model card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from perceptloss import Critic, get_card
from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.output.files import write_atomically
from perceptloss.output.tables import markdown
from perceptloss.runs.meters import run_facts
from perceptloss.runs.state import finite
from perceptloss.teach.cards.facts import DataSource, Figure, ModelCard, Origin, metadata
from perceptloss.teach.cards.markdown import render
from perceptloss.teach.exams.evaluate import examine
from perceptloss.teach.run.critic import build_critic, quality_of
from perceptloss.teach.run.options import CardText, CriticOptions, Val
from perceptloss.teach.run.saving import stamp
from perceptloss.teach.run.setup import Material
from perceptloss.teach.sets.packages import is_package, package
from perceptloss.weights.checkpoints import read_facts
from perceptloss.weights.download import sha256_of

__all__ = [
    "STARTING",
    "card_problems",
    "conclude",
    "data_sources",
    "figures_table",
    "origin_in",
    "origin_of",
    "verdict",
]

STARTING = "starting weights"

_MEASURES = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "pairwise": "pairs of one photograph in order",
    "levels": "levels of one damage in order",
}
_OF_FAMILIES = ("srcc", "levels")
_PARTS = {"all": "all", "seen": "families trained on", "unseen": "families never trained on"}


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


def data_sources(text: CardText, teachers: Sequence[str]) -> list[DataSource]:
    """What the weights were learned from: as the configuration says, and the teachers."""
    given = [
        DataSource(
            name=str(s.get("name") or Path(s["folder"]).name),
            licence=str(s["licence"]),
            attribution=str(s["attribution"]),
            use=str(s.get("use") or "photographs"),
        )
        for s in text.sources
    ]
    for name in teachers:
        if is_package(name):
            licence, paper = package(name).licence, package(name).paper
        else:
            card = get_card(name)
            name, licence, paper = card.name, card.licence_weights or card.licence_code, card.paper
        given.append(DataSource(name=name, licence=licence, attribution=paper, use="labels, as a teacher"))
    return given


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
    found = {n: examine(accelerator, partial(quality_of, c), material.exams, **options) for n, c in systems.items()}
    if not accelerator.is_main_process:
        return ""
    if before is not None:
        found = {STARTING: dict(before), **found}
    if card.write and origin is not None:
        stamp(file, metadata(_card(critic, file, origin, card, material)))
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
        "origin": None if origin is None else origin.__dict__,
        **run_facts(accelerator),
    }
    text = figures_table(found) + ("" if before is None else verdict(before, found[own.name]))
    if card.write and origin is not None:
        described = _complete(_card(critic, file, origin, card, material), file, exams, val, material.teachers)
        write_atomically(file.with_suffix(".md"), render(described))
    elif card.write:
        text += f"\nNo model card: {folder} holds no results.json that says how the weights came about.\n"
    write_atomically(folder / "results.md", text)
    write_atomically(folder / "results.json", json.dumps(finite(content), indent=1, allow_nan=False))
    return text


def figures_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What `examine` gave of some critics, a column for each; a row per exam, part and figure, without families."""
    first = next(iter(found.values()))
    rows = [
        [f"{exam}, {_PARTS[part]}", _MEASURES[figure], *(_text(exams[exam][part][figure]) for exams in found.values())]
        for exam, parts in first.items()
        for part in parts
        if part in _PARTS
        for figure in parts[part]
    ]
    return markdown(["exam", "figure", *found], rows)


def verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A sentence if the taught weights agree less with an exam than those they started from, else nothing."""
    pairs = {exam: [found[exam]["all"]["srcc"]["value"] for found in (before, after)] for exam in before}
    worse = [exam for exam, (a, b) in pairs.items() if a is not None and (b is None or b < a)]
    if not worse:
        return ""
    return (
        f"\nOn {', '.join(worse)} the taught weights agree less (SRCC) than those that they started from: "
        "stay with those, or teach from more images.\n"
    )


def _text(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "—"
    interval = _interval(figure)
    return f"{figure['value']:.3f}" if interval is None else str(interval)


def _interval(figure: Mapping[str, Any]) -> Interval | None:
    if figure["value"] is None or figure.get("low") is None:
        return None
    return Interval(figure["value"], figure["low"], figure["high"])


def _card(critic: Critic, file: Path, origin: Origin, text: CardText, material: Material) -> ModelCard:
    """The card without what depends on the finished file."""
    return ModelCard(
        name=critic.card.name,
        summary=text.summary,
        kind=critic.card.kind,
        better=critic.card.better,
        fidelity=critic.card.fidelity,
        licence=text.licence,
        data=data_sources(text, material.teachers),
        **origin.__dict__,
        parameters=sum(p.numel() for p in critic.parameters()),
        gflops=_gflops(critic),
        file=file.name,
        held_out_families=sorted({family for exam in material.exams for family in exam.unseen}),
        held_out_sources=[f"{exam.name} ({exam.about.rstrip('.')})" for exam in material.exams],
        failures=text.known_failures,
    )


def _complete(card: ModelCard, file: Path, exams: Mapping[str, Any], val: Val, teachers: Sequence[str]) -> ModelCard:
    figures, undefined = _figures(card.name, exams)
    chosen = ", the best on the exams" if 0 < val.every < card.steps else ""
    origin = f"These are the averaged weights after step {read_facts(file).get('step')}{chosen}."
    shown = sorted({peer for figure in figures for peer in figure.peers if peer in teachers})
    taught = [f"{', '.join(shown)}: teachers, whose scores made the targets; no independent peers."] if shown else []
    return replace(card, sha256=sha256_of(file), figures=figures, notes=[origin, *taught, *undefined])


def _figures(name: str, exams: Mapping[str, Any]) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    undefined: list[str] = []
    for exam, result in exams.items():
        own = result["figures"][name]
        peers = {n: found for n, found in result["figures"].items() if n != name}
        for part, measures in own.items():
            label = f"{exam}, {_PARTS.get(part, part.replace('family:', 'family '))}"
            for measure, figure in measures.items():
                if part not in _PARTS and measure not in _OF_FAMILIES:
                    continue
                value = _interval(figure)
                if value is None:
                    undefined.append(f"{label}: {_MEASURES[measure]} has no interval. {figure.get('why', '')}")
                    continue
                others = {n: i for n, f in peers.items() if (i := _interval(f[part][measure])) is not None}
                figures.append(
                    Figure(data=label, measure=_MEASURES[measure], value=value, count=figure["count"], peers=others)
                )
    return figures, undefined


@torch.no_grad()
def _gflops(critic: Critic) -> float:
    device = next(critic.parameters()).device
    x = torch.rand(1, critic.card.channels, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    with FlopCounterMode(display=False) as counter:
        critic(x, x if critic.card.needs_reference else None)
    return counter.get_total_flops() / 1e9
