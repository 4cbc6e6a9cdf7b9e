"""What perceptloss logs, in the log of its host."""

from __future__ import annotations

import copy
import logging

__all__ = ["Forward", "forward_log"]


class Forward(logging.Handler):
    """Hands perceptloss's log records to a host's logger, which writes the log file of a run.

    Args:
        host: The name of its logger, which is that of its package.
    """

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on; those of other ranks, which hosts silence, too, as the NaN may be theirs."""
        logger = logging.getLogger(self.host)
        if not logger.isEnabledFor(record.levelno):
            if record.levelno < logging.WARNING:
                return
            record = copy.copy(record)
            record.msg = f"(not on rank 0) {record.msg}"
        for handler in logger.handlers:  # its own alone: the root's get the record anyway
            if record.levelno >= handler.level:
                handler.handle(record)


def forward_log(host: str) -> None:
    """Let what perceptloss logs go to the logger of a package; may be repeated."""
    ours = logging.getLogger("perceptloss")
    if not any(isinstance(handler, Forward) and handler.host == host for handler in ours.handlers):
        ours.addHandler(Forward(host))
