"""FPR: a pseudo-reference in feature space."""
