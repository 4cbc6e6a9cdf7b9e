"""Starting a script in processes of its own and passing its exit code on; Ctrl-C is for the script to handle."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["launch", "run"]


def run(script: Path, arguments: Sequence[str]) -> int:
    """Run a script by this Python; its exit code."""
    with _deaf_to_interrupts():
        return _code(subprocess.run([sys.executable, str(script), *arguments], check=False).returncode)


def launch(script: Path, options: Sequence[str], arguments: Sequence[str]) -> int:
    """Run a script by `accelerate launch` with these options; its exit code, of several processes the first bad one.

    Raises:
        SystemExit: if the launcher does not know an option.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)  # which defaults it takes
    with _deaf_to_interrupts():
        try:
            launch_command(launch_command_parser().parse_args([*options, str(script), *arguments]))
        except subprocess.CalledProcessError as error:
            return _code(error.returncode)
        except ChildFailedError as error:
            return _code(error.get_first_failure()[1].exitcode)
        except SignalException as error:
            return _code(-error.sigval)
    return 0


def _code(returned: int) -> int:
    """As a shell has it: 128 and the signal for a process that one ended."""
    return returned if returned >= 0 else 128 - returned


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A terminal sends Ctrl-C to the script as well, which may want to save; a handler, as SIG_IGN is inherited."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
