"""Comparing restored images by critic score: `compare`, `score`, `score_pairs` and their `Results`."""

from __future__ import annotations

from perceptloss.compare.analysis import Analysis
from perceptloss.compare.joining import join, merge
from perceptloss.compare.results import Results, load_results
from perceptloss.compare.run import compare, score, score_pairs
from perceptloss.compare.settings import Pairing, Settings

__all__ = [
    "Analysis",
    "Pairing",
    "Results",
    "Settings",
    "compare",
    "join",
    "load_results",
    "merge",
    "score",
    "score_pairs",
]
