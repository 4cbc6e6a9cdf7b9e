"""What a BasicSR model leaves behind in the process, taken away after each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fakes import Records


@pytest.fixture(autouse=True)
def _no_forwarding_afterwards() -> Iterator[None]:
    """A BasicSR model hands our log records to BasicSR's logger for the rest of the process."""
    logger = logging.getLogger("perceptloss")
    before = list(logger.handlers)
    yield
    for handler in [h for h in logger.handlers if h not in before]:
        logger.removeHandler(handler)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages of BasicSR's logger, as they come."""
    records, logger = Records(), logging.getLogger("basicsr")
    before = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    yield records.lines
    logger.removeHandler(records)
    logger.setLevel(before)
