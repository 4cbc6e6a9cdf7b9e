"""What a critic is taught with: losses of a batch of predictions and labels, and what goes with them.

Correlations, comparisons, lists and regressions are functions of predictions `q`, higher better, and labels
`y`, (N,) each, and give a 0-d loss, computed in float32 or finer, of finite value and slope also for constant
or tied lists, and 0 where a list is too short to say anything. None is meant for a restorer.
"""

from __future__ import annotations

from perceptloss.teach.objectives.balance import UncertaintyWeights
from perceptloss.teach.objectives.comparison import (
    difference_mse,
    elo_mse,
    elo_variance,
    fidelity_loss,
    gap_weights,
    pair_accuracy,
    pairwise_bce,
    rank_hinge,
    same_content,
)
from perceptloss.teach.objectives.correlation import (
    ccc_loss,
    kendall_loss,
    pearson_loss,
    soft_ranks,
    spearman_loss,
)
from perceptloss.teach.objectives.gather import gather_list
from perceptloss.teach.objectives.heads import DatasetHeads
from perceptloss.teach.objectives.listwise import (
    asna_loss,
    batch_extremes,
    batch_kl,
    consistency,
    extreme_triplets,
    relative_distance_kl,
    surrogate_rank_loss,
    tres_loss,
)
from perceptloss.teach.objectives.proxies import (
    ProxyHead,
    assignment_cost,
    balanced_bce,
    batch_triplets,
    class_proxies,
    code_distance,
    greedy_assignment,
    hamming,
    hash_consistent,
    large_margin_proxies,
    level_similarity,
    procrustes,
    simplex_proxies,
    spread_proxies,
    triplet_loss,
)
from perceptloss.teach.objectives.regression import (
    norm_in_norm,
    rank_gradient_loss,
    reqa_loss,
    reqa_weights,
    tolerance_loss,
    triplet_margin,
)
from perceptloss.teach.objectives.unlabelled import (
    PseudoLabels,
    PULosses,
    pseudo_label_loss,
    pu_loss,
    pu_losses,
    ramp,
)

__all__ = [
    "DatasetHeads",
    "PULosses",
    "ProxyHead",
    "PseudoLabels",
    "UncertaintyWeights",
    "asna_loss",
    "assignment_cost",
    "balanced_bce",
    "batch_extremes",
    "batch_kl",
    "batch_triplets",
    "ccc_loss",
    "class_proxies",
    "code_distance",
    "consistency",
    "difference_mse",
    "elo_mse",
    "elo_variance",
    "extreme_triplets",
    "fidelity_loss",
    "gap_weights",
    "gather_list",
    "greedy_assignment",
    "hamming",
    "hash_consistent",
    "kendall_loss",
    "large_margin_proxies",
    "level_similarity",
    "norm_in_norm",
    "pair_accuracy",
    "pairwise_bce",
    "pearson_loss",
    "procrustes",
    "pseudo_label_loss",
    "pu_loss",
    "pu_losses",
    "ramp",
    "rank_gradient_loss",
    "rank_hinge",
    "relative_distance_kl",
    "reqa_loss",
    "reqa_weights",
    "same_content",
    "simplex_proxies",
    "soft_ranks",
    "spearman_loss",
    "spread_proxies",
    "surrogate_rank_loss",
    "tolerance_loss",
    "tres_loss",
    "triplet_loss",
    "triplet_margin",
]
