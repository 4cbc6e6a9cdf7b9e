"""A page for each critic, from its card and docstring, made when the site is built."""

from __future__ import annotations

from pathlib import Path

from perceptloss.card import Card
from perceptloss.output.tables import markdown
from perceptloss.registry import find_entry, list_critics

__all__ = ["write_pages"]


def module_of(card: Card) -> str:
    """The module of the class behind a card."""
    build = find_entry(card.name).build
    return str(getattr(build, "func", build).__module__)


def number(value: float) -> str:
    """A bound, with the sign of infinity."""
    return f"{value:g}".replace("inf", "∞")


def page(card: Card) -> str:
    """What a person wants to know before choosing a critic."""
    facts = {
        "kind": f"`{card.kind}`: {'compares with a reference' if card.needs_reference else 'judges the image alone'}",
        "better": f"{card.better} {card.arrow}",
        "bounds": " … ".join(map(number, card.bounds)),
        "score of a perfect image": "depends on the image" if card.identity is None else f"{card.identity:g}",
        "default shape of the loss": f"`{card.shape}`",
        "domains": ", ".join(sorted(card.domains)),
        "smallest side": f"{card.min_size} pixels" + (f", a multiple of {card.multiple_of}" * (card.multiple_of > 1)),
        "tiles": card.tiling,
        "trunk in bf16 or fp16": "allowed" if card.low_precision else "no",
        "fidelity": f"`{card.fidelity}`",
        "weights": ", ".join(f"`{name}`" for name in card.weights) or "none needed",
        "licence of the code": card.licence_code,
        "licence of the weights": card.licence_weights or "none needed",
        "paper": card.paper,
        "source": card.source,
    }
    table = markdown(("", ""), facts.items(), "l")
    notes = "".join(f"- {note}\n" for note in card.notes)
    y = "x, y" if card.needs_reference else "x"
    return (
        f"# {card.name}\n\n{card.summary}\n\n{table}\n"
        + (f"## Good to know\n\n{notes}\n" if notes else "")
        + f'## Use\n\n```python\ncritic = create_critic("{card.name}")\nscore = critic({y})\n\n'
        + f'loss_fn = CriticLoss({{"{card.name}": 1.0}})\n```\n\n'
        + f"## Code\n\n```{{eval-rst}}\n.. automodule:: {module_of(card)}\n   :no-index:\n```\n"
    )


def write_pages(folder: Path) -> None:
    """Write `NAME.md` for each critic of the registry, and an index; files that would not change are left alone."""
    cards = list_critics()
    rows = ((f"[{c.name}]({c.name}.md)", c.kind, c.summary) for c in cards)
    table = markdown(("critic", "kind", "what it measures"), rows, "l")
    names = "\n".join(c.name for c in cards)
    tree = f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    index = f"# Critics, one by one\n\n{tree}\n{table}"
    folder.mkdir(exist_ok=True)
    for name, text in {**{c.name: page(c) for c in cards}, "index": index}.items():
        file = folder / f"{name}.md"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
