"""URanker: a ranker of underwater images."""
