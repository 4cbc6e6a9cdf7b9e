"""`perceptloss list`: the critics, from their cards alone."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from perceptloss.cli.terminal import result, result_json
from perceptloss.errors import ConfigError, near
from perceptloss.output.tables import markdown, text

if TYPE_CHECKING:
    from perceptloss.card import Card

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("list", help="critics by what their cards say", description=__doc__)
    kinds = ("fr", "nr", "stereo", "stereo-fr", "stereo-nr")
    parser.add_argument(
        "--kind", choices=kinds, help="fr: compares with a reference, nr: judges alone; stereo: both of pairs"
    )
    parser.add_argument("--domain", help="only critics for this domain, such as natural, underwater, screen")
    parser.add_argument(
        "--licence", choices=("commercial", "any"), default="any", help="commercial: code and weights allow it"
    )
    parser.add_argument("--weight-free", action="store_true", help="only critics that need no weight file")
    parser.add_argument("--json", action="store_true", help="the cards as a JSON list; short for --format json")
    parser.add_argument("--format", choices=("table", "json", "md"), default="table", help="md: a Markdown table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the critics that fit."""
    from perceptloss.registry import list_critics

    cards = list_critics()
    domains = sorted({domain for card in cards for domain in card.domains})
    if args.domain is not None and args.domain not in domains:
        hint = near(args.domain, domains) or "."
        raise ConfigError(
            [f"no critic is for the domain {args.domain!r}{hint} Domains: {', '.join(domains)}"], "--domain"
        )
    chosen = [card for card in cards if _fits(card, args)]
    if args.format == "md":
        result(_markdown(chosen))
    elif args.json or args.format == "json":
        result_json([card.to_dict() for card in chosen])
    else:
        result(_table(chosen))
    return 0


def _fits(card: Card, args: argparse.Namespace) -> bool:
    kind = args.kind is None or card.kind == args.kind or (args.kind == "stereo" and card.kind.startswith("stereo"))
    domain = args.domain is None or args.domain in card.domains
    licence = args.licence == "any" or card.is_commercial
    return kind and domain and licence and not (args.weight_free and card.weights)


def _table(cards: list[Card]) -> str:
    rows = [("critic", "kind", "score", "from", "domains", "licence", "weights", "measures")]
    for card in cards:
        low, high = (f"{bound:g}" for bound in card.bounds)
        rows.append(
            (
                f"{card.name} {card.arrow}",
                card.kind,
                f"{low} to {high}",
                f"{card.min_size} px",
                ", ".join(sorted(card.domains)),
                "commercial" if card.is_commercial else "restricted",
                ", ".join(card.weights) or "none",
                card.summary,
            )
        )
    return text(rows)


def _markdown(cards: list[Card]) -> str:
    head = ["critic", "kind", "better", "bounds", "smallest side", "weights", "fidelity", "code / weights licence"]
    rows = []
    for card in cards:
        bounds = " … ".join(f"{bound:g}".replace("inf", "∞") for bound in card.bounds)
        licences = " / ".join(filter(None, (card.licence_code, card.licence_weights)))
        facts = (
            card.kind,
            f"{card.better} {card.arrow}",
            bounds,
            str(card.min_size),
            ", ".join(card.weights) or "none",
        )
        rows.append([f"`{card.name}`", *facts, card.fidelity, licences])
    return markdown(head, rows, "l")
