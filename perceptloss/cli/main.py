"""The command `perceptloss`: strict arguments, exit codes, and messages; each subcommand is a module beside this one.

Exit codes: 0 fine; 1 internal error, or a score that is not finite; 2 usage or pairing; 3 weights
unavailable; 4 a threshold of `--fail-if` was met; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from perceptloss import __version__
from perceptloss.cli.terminal import STDOUT, flush, message
from perceptloss.errors import (
    ConfigError,
    InputError,
    PairingError,
    PerceptlossError,
    UnknownCritic,
    WeightsError,
    near,
)
from perceptloss.output.names import visible

__all__ = ["main"]

OK, INTERNAL, USAGE, WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 130

# command -> its line of help; a module is imported only when its command is used
_COMMANDS: Final = {
    "list": "critics by what their cards say",
    "show": "everything about one critic",
    "score": "score the images of one system",
    "compare": "score the outputs of several systems on the same images",
    "vmaf": "VMAF of outputs by ffmpeg, for compare --scores-from",
    "report": "one page of results that were saved, or of several over time",
    "vote": "one blind page on which people say which outputs look better",
    "map": "show where in an image a critic sees what",
    "plan": "what critics cost on images of a size",
    "recipe": "list, show, copy and run the training recipes",
    "weights": "list, fetch, verify, find and convert weight files",
    "doctor": "examine a critic: what a restorer could exploit in it, and which guard helps",
    "env": "versions, devices, and which critics can be used here",
}


_STYLES: Final = {
    logging.ERROR: ("error", "red"),
    logging.WARNING: ("warning", "yellow"),
    logging.NOTSET: ("note", "dim"),
}


class _Parser(argparse.ArgumentParser):
    """Without abbreviations, here and in subcommands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_fail(visible(message), USAGE))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: Arguments without the program's name; None for those of the process.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(given)
        with _messages(quiet=getattr(args, "quiet", False)):
            args.command_line = ["perceptloss", *given]
            code: int = args.run(args)
            flush()
            return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else INTERNAL
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _give_up_stdout()
        return OK
    except (ConfigError, PairingError, UnknownCritic, InputError) as error:
        return _fail(str(error), USAGE)
    except WeightsError as error:
        return _fail(str(error), WEIGHTS)
    except PerceptlossError as error:
        return _fail(str(error), INTERNAL)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            if error.filename == STDOUT:
                _give_up_stdout()
            return _fail(f"{error.filename or 'a file'}: {error.strerror}", USAGE)
        return _fail(f"internal error, please report it\n{traceback.format_exc()}", INTERNAL)


def _give_up_stdout() -> None:
    """Lead what is left to nowhere, since the interpreter flushes again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(text: str, code: int) -> int:
    message("error", "red", text)
    return code


def _parse(given: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="perceptloss", description="Image-quality critics: list them, score images, compare systems.")
    parser.add_argument("--version", action="version", version=f"perceptloss {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    name = next((word for word in given if not word.startswith("-")), "")
    if name and name not in _COMMANDS:
        parser.error(f"unknown command {name!r}{near(name, _COMMANDS) or '.'} Commands: {', '.join(_COMMANDS)}")
    for command, about in _COMMANDS.items():
        if command == name:
            importlib.import_module(f"perceptloss.cli.{command}").add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=about)
    if name:
        _refuse_unknown_flags(subparsers.choices[name], given)
    is_passed_on = given[:2] == ["recipe", "run"] and "--" in given
    return parser.parse_args(given[: given.index("--")] if is_passed_on else given)


def _refuse_unknown_flags(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Name all flags that do not exist, with hints, before argparse complains about what is missing."""
    known = set(_flags(parser)) | {"--version"}
    words = given[: given.index("--")] if "--" in given else given
    flags = [word.split("=")[0] for word in words if word.startswith("--") and " " not in word.split("=")[0]]
    problems = [f"unknown flag {flag}{near(flag, known)}" for flag in flags if flag not in known]
    if problems:
        parser.error("; ".join(problems) + (parser.get_default("flag_hint") or ""))


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _flags(below)


class _Handler(logging.Handler):
    """Library messages on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        name, colour = next(style for level, style in _STYLES.items() if record.levelno >= level)
        message(name, colour, record.getMessage())


@contextmanager
def _messages(*, quiet: bool) -> Iterator[None]:
    """Show warnings and notes of the library on stderr; with `quiet`, errors only."""
    logger = logging.getLogger("perceptloss")
    handler, level, propagate = _Handler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
