"""Whether the pictures of a comparison seem to be of a data set that a critic learned from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from perceptloss.compare.results import Column, Results
from perceptloss.errors import WeightsError
from perceptloss.weights.places import get_file, places

__all__ = ["overlaps"]

# as cards and weight files spell them; folders are called so too, in any case and with more behind
_SETS: Final = (
    *("BAPPS", "CID22", "CLIVE", "CSIQ", "FLIVE", "KADID", "KADIS", "KonIQ", "LIVE", "NNID", "PIPAL", "QADS", "SPAQ"),
    *("TID2013", "UIEB"),
)
_TAUGHT: Final = re.compile(r"^- (\w+): training\.", re.MULTILINE)


def overlaps(results: Results) -> Iterator[str]:
    """A sentence for each critic and data set that both its card and a folder of the pictures name."""
    words = _words(results)
    for column in results.critics:
        text = _told(column)
        for name in _SETS:
            is_told = re.search(rf"(?<![A-Za-z]){name}", text, re.IGNORECASE)
            if is_told and any(word.startswith(name.lower()) for word in words):
                yield (
                    f"{column.label} names {name} among what it stands on, and a folder of these pictures is called "
                    "so: scores of pictures that a critic learned from flatter."
                )


def _words(results: Results) -> set[str]:
    """Parts of the names of all folders and lists that pictures came from."""
    inputs = results.provenance.get("inputs", {})
    paths = [str(facts.get("path", "")) for facts in inputs.values() if isinstance(facts, Mapping)]
    sources = results.settings.get("sources", {})
    paths += map(str, sources.values()) if isinstance(sources, Mapping) else ()
    return {word for path in paths for word in re.split(r"[^a-z0-9]+", path.lower())}


def _told(column: Column) -> str:
    """What its card, its weight files and their cards say that it learned from."""
    card, texts = column.card, [str(column.card.get("summary", ""))]
    texts += card.get("notes") or ()
    for name in card.get("weights") or ():
        with suppress(WeightsError, OSError):
            entry = get_file(name)
            texts.append(entry.about)
            cards = (Path(place.path).with_suffix(".md") for place in places(entry))
            texts += [name for path in cards if path.is_file() for name in _TAUGHT.findall(path.read_text("utf-8"))]
    return "\n".join(texts)
