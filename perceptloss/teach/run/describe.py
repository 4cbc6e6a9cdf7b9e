"""A run as a model card: its critic, what it learned from, and the figures of its exams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from perceptloss import Critic, get_card
from perceptloss.compare.statistics.bootstrap import Interval
from perceptloss.teach.cards.facts import Attacked, DataSource, Figure, ModelCard, Origin
from perceptloss.teach.run.options import CardText, Val
from perceptloss.teach.run.setup import Material
from perceptloss.teach.sets.packages import is_package, package
from perceptloss.weights.checkpoints import read_facts
from perceptloss.weights.download import sha256_of

__all__ = ["MEASURES", "PARTS", "attacked_in", "complete", "data_sources", "describe", "interval_of"]

MEASURES = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "krcc": "KRCC",
    "pairwise": "pairs of one photograph in order",
    "within": "pairs of one cut and factor in order",
    "levels": "levels of one damage in order",
    "prefer": "pairs in order by preference",
    "prefer_ece": "calibration error of preference",
}
"""Figures in words; questions of an exam are words already."""

PARTS = {"all": "all", "seen": "families trained on", "unseen": "families never trained on"}
_OF_THE_WHOLE = ("plcc", "krcc", "pairwise")


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


def describe(critic: Critic, file: Path, origin: Origin, text: CardText, material: Material) -> ModelCard:
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


def complete(
    card: ModelCard,
    file: Path,
    exams: Mapping[str, Any],
    attacks: Mapping[str, Any] | None,
    val: Val,
    teachers: Sequence[str],
) -> ModelCard:
    """The card with the file's hash and all figures.

    Args:
        card: Of `describe`.
        file: The weights.
        exams: As in results.json.
        attacks: As in results.json.
        val: How it was examined.
        teachers: Critics whose scores were the targets.
    """
    figures, undefined = _figures(card.name, exams)
    chosen = ", the best on the exams" if 0 < val.every < card.steps else ""
    origin = f"These are the averaged weights after step {read_facts(file).get('step')}{chosen}."
    shown = sorted({peer for figure in figures for peer in figure.peers if peer in teachers})
    taught = [f"{', '.join(shown)}: teachers, whose scores made the targets; no independent peers."] if shown else []
    notes = [origin, *taught, *undefined]
    return replace(card, sha256=sha256_of(file), figures=figures, attacks=attacked_in(attacks), notes=notes)


def _figures(name: str, exams: Mapping[str, Any]) -> tuple[list[Figure], list[str]]:
    figures: list[Figure] = []
    undefined: list[str] = []
    for exam, result in exams.items():
        own = result["figures"][name]
        peers = {n: found for n, found in result["figures"].items() if n != name}
        for part, measures in own.items():
            label = PARTS.get(part, part.removeprefix("family:"))
            for measure, figure in measures.items():
                if part not in PARTS and measure in _OF_THE_WHOLE:
                    continue
                text = MEASURES.get(measure, measure)
                value = interval_of(figure)
                if value is None:
                    undefined.append(f"{exam}, {label}: {text} has no interval. {figure.get('why', '')}")
                    continue
                others = {n: interval_of(f.get(part, {}).get(measure)) for n, f in peers.items()}
                figures.append(
                    Figure(
                        exam=exam,
                        part=label,
                        measure=text,
                        value=value,
                        count=figure["count"],
                        peers={n: interval for n, interval in others.items() if interval is not None},
                        is_detail=part not in PARTS,
                    )
                )
    return figures, undefined


def interval_of(figure: Mapping[str, Any] | None) -> Interval | None:
    """A figure of an exam with its interval; None if either is missing."""
    if figure is None or figure["value"] is None or figure.get("low") is None:
        return None
    return Interval(figure["value"], figure["low"], figure["high"])


def attacked_in(attacks: Mapping[str, Any] | None) -> list[Attacked]:
    """Rows of the attack table, of what results.json says."""
    if attacks is None:
        return []
    return [
        Attacked(
            exam=attacks["exam"],
            count=attacks["images"],
            weights=weights,
            attack=attack,
            srcc={int(strength): figure["value"] for strength, figure in found.items()},
        )
        for weights, by_attack in attacks["figures"].items()
        for attack, found in by_attack.items()
    ]


@torch.no_grad()
def _gflops(critic: Critic) -> float:
    device = next(critic.parameters()).device
    x = torch.rand(1, critic.card.channels, 256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    with FlopCounterMode(display=False) as counter:
        critic(x, x if critic.card.needs_reference else None)
    return counter.get_total_flops() / 1e9
