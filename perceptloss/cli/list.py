"""`perceptloss list`: the critics, from their cards alone; ours are data, so that torch is not loaded."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import textwrap
from importlib.metadata import entry_points
from typing import Final

from perceptloss.card import CARDS, GROUP, Card, shipped_cards
from perceptloss.cli.terminal import result, result_json
from perceptloss.errors import ConfigError, near
from perceptloss.output.tables import markdown, text

__all__ = ["add_parser", "known_cards"]

_SHORTEST: Final = 32  # characters that the summary keeps at least; other columns go first
_LEAVING: Final = ("weights", "domains", "from", "licence", "score")  # in this order, where a terminal is narrow


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
    parser.add_argument("--wide", action="store_true", help="all columns, however wide the terminal is")
    parser.add_argument("--json", action="store_true", help="the cards as a JSON list; short for --format json")
    parser.add_argument("--format", choices=("table", "json", "md"), default="table", help="md: a Markdown table")
    parser.add_argument("--refresh", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the critics that fit."""
    if args.refresh:
        _refresh()
    cards, broken = known_cards()
    for name, reason in broken.items():
        logging.getLogger("perceptloss").warning("critic %r of another package is %s", name, reason)
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
        result(_table(chosen, None if args.wide else shutil.get_terminal_size().columns))
    return 0


def known_cards() -> tuple[list[Card], dict[str, str]]:
    """Cards of all installed critics, sorted by name, and what is wrong with those of other packages that fail."""
    cards, broken = shipped_cards(), {}
    for point in entry_points(group=GROUP):
        if point.name not in cards:
            try:
                cards[point.name] = point.load().card
            except Exception as error:
                broken[point.name] = f"broken: {type(error).__name__}: {error}"
    return [cards[name] for name in sorted(cards)], broken


def _refresh() -> None:
    """Write the data again from the code; for those who change a card."""
    from perceptloss.registry import list_critics

    facts = [card.to_dict() for card in list_critics()]
    CARDS.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fits(card: Card, args: argparse.Namespace) -> bool:
    kind = args.kind is None or card.kind == args.kind or (args.kind == "stereo" and card.kind.startswith("stereo"))
    domain = args.domain is None or args.domain in card.domains
    licence = args.licence == "any" or card.is_commercial
    return kind and domain and licence and not (args.weight_free and card.weights)


def _table(cards: list[Card], width: int | None) -> str:
    """Aligned columns; with a width, as many as leave room for the summary, which is shortened."""
    columns: dict[str, list[str]] = {
        "critic": [f"{card.name} {card.arrow}" for card in cards],
        "kind": [card.kind for card in cards],
        "score": [" to ".join(f"{bound:g}" for bound in card.bounds) for card in cards],
        "from": [f"{card.min_size} px" for card in cards],
        "domains": [", ".join(sorted(card.domains)) for card in cards],
        "licence": ["commercial" if card.is_commercial else "restricted" for card in cards],
        "weights": [", ".join(card.weights) or "none" for card in cards],
    }
    wide = {title: max(map(len, (title, *cells))) for title, cells in columns.items()}
    measures = [card.summary for card in cards]
    if width is not None:
        for title in _LEAVING:
            if width - sum(wide.values()) - 2 * len(wide) < _SHORTEST:
                del wide[title]
        room = max(_SHORTEST, width - sum(wide.values()) - 2 * len(wide))
        measures = [textwrap.shorten(summary, room, placeholder=" …", break_on_hyphens=False) for summary in measures]
    table = [[title, *columns[title]] for title in wide]
    return text(zip(*table, ["measures", *measures], strict=True))


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
