"""What a critic is taught with: losses of a batch of predictions and labels, and what goes with them.

Correlations, comparisons, lists and regressions are functions of predictions `q`, higher better, and labels
`y`, (N,) each, and give a 0-d loss, computed in float32 or finer, of finite value and slope also for constant
or tied lists, and 0 where a list is too short to say anything. None is meant for a restorer.
"""
