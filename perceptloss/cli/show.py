"""`perceptloss show`: everything about one critic, and whether its weights are here."""

from __future__ import annotations

import argparse
from typing import Final

from perceptloss.card import Card, shipped_cards
from perceptloss.cli.terminal import result, result_json
from perceptloss.output.tables import text

__all__ = ["add_parser", "signature_pattern", "weight_places"]

_SHAPES: Final = {
    "distance": "the score itself",
    "deficit": "(highest - score) / (highest - lowest)",
    "hinge": "how far the score stays behind that of the reference",
    "softplus": "softplus(score of the reference - score)",
    "sigmoid": "sigmoid(-score)",
}
_FIDELITY: Final = {
    "official-parity": "checked against the authors' code",
    "paper": "from the paper",
    "after-paper": "after the paper; partly ours",
}
_TILING: Final = {
    "exact": "exact: what its tiles add up to is the score of the image",
    "approximate": "approximate: the mean over tiles is close to the score of the image",
    "never": "never: it must see whole images",
    "inside": "inside: it looks at a few parts by itself, so that its memory does not grow with the image",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("show", help="everything about one critic", description=__doc__)
    parser.add_argument("name", metavar="CRITIC")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the card."""
    card = _card(args.name)
    files = weight_places(card)
    if args.json:
        facts = {**card.to_dict(), "signature": signature_pattern(card), "files": files}
        result_json(facts)
    else:
        result(_text(card, files))
    return 0


def _card(name: str) -> Card:
    shipped = shipped_cards()
    if name in shipped:
        return shipped[name]
    from perceptloss.registry import get_card

    return get_card(name)


def weight_places(card: Card) -> dict[str, str | None]:
    """Path of each weight file of a critic, None if it is not here, or why the file there is refused."""
    from perceptloss.errors import WeightsError
    from perceptloss.weights.search import get_file, locate

    found: dict[str, str | None] = {}
    for name in card.weights:
        try:
            place = locate(get_file(name))
            found[name] = None if place is None else str(place.path)
        except WeightsError as error:
            found[name] = f"refused: {error}"
    return found


def signature_pattern(card: Card) -> str:
    """What signatures of this critic look like."""
    from perceptloss import __version__

    weights = "<hash of the weights>" if card.weights else "none"
    return f"{card.name}|weights:{weights}|rgb|fp32|perceptloss:{__version__}"


def _how_to_get(file: str, card: Card) -> str:
    from perceptloss.weights.places import get_file, how_to_fetch

    by_hand = get_file(file).obtain
    return f"not here; by hand: {by_hand}" if by_hand else f"not here; {how_to_fetch(card.name, card.weights)}"


def _text(card: Card, files: dict[str, str | None]) -> str:
    facts = {**_use(card), **_needs(card), **_origin(card)}
    parts = [f"{card.name}: {card.summary}\n", text(facts.items())]
    if files:
        rows = ((f"  {name}", path or _how_to_get(name, card)) for name, path in files.items())
        parts.append("weights\n" + text(rows))
    if card.notes:
        parts.append("notes\n" + "".join(f"  - {note}\n" for note in card.notes))
    return "\n".join(parts)


def _use(card: Card) -> dict[str, str]:
    low, high = card.bounds
    compares = "compares with a reference" if card.needs_reference else "judges an image alone"
    return {
        "kind": f"{card.kind}, {compares}",
        "better": f"{card.better} {card.arrow}",
        "bounds": f"{low:g} to {high:g}",
        "identity": "depends on the image"
        if card.identity is None
        else f"{card.identity:g} for an image against itself",
        "loss shape": f"{card.shape}: {_SHAPES[card.shape]}",
        "domains": ", ".join(sorted(card.domains)),
    }


def _needs(card: Card) -> dict[str, str]:
    multiple = f", sides multiples of {card.multiple_of}" if card.multiple_of > 1 else ""
    return {
        "image": f"{card.channels} channels, at least {card.min_size}x{card.min_size} pixels{multiple}",
        "precision": "fp32, trunk also in bf16 or fp16" if card.low_precision else "fp32",
        "tiling": _TILING[card.tiling],
        "batch": "scores depend on the rest of the batch" if card.couples_batch else "images are scored independently",
    }


def _origin(card: Card) -> dict[str, str]:
    allowed = "commercial use not forbidden" if card.is_commercial else "not for commercial use, or not stated"
    return {
        "fidelity": f"{card.fidelity}: {_FIDELITY[card.fidelity]}",
        "licence of code": card.licence_code,
        "licence of weights": card.licence_weights or "needs none",
        "licence": allowed,
        "paper": card.paper,
        "source": card.source,
        "signature": signature_pattern(card),
    }
