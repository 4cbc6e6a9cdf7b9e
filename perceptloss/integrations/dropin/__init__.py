"""Losses of traiNNer-redux and neosr by their names and options, with critics of ours behind them.

Register in a copy of the training script, before its pipeline is started::

    from basicsr.utils.registry import LOSS_REGISTRY
    from perceptloss.integrations.dropin import register_drop_ins

    register_drop_ins(LOSS_REGISTRY, "trainner", weighs="loss")

Then a list of losses such as `type: hsluvloss, criterion: charbonnier, loss_weight: 1.0` moves over unchanged. Options
that cannot mean the same here are refused with a sentence. What each name means is in `docs/neosr-trainner.md`.
"""

from perceptloss.integrations.dropin.absent import Dialect
from perceptloss.integrations.dropin.drop_in import DropIn
from perceptloss.integrations.dropin.losses import DropInLoss, drop_in_loss, register_drop_ins
from perceptloss.integrations.dropin.meanings import known_names, meaning_of

__all__ = ["Dialect", "DropIn", "DropInLoss", "drop_in_loss", "known_names", "meaning_of", "register_drop_ins"]
