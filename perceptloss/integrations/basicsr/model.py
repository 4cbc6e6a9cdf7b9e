"""Adds critics to any BasicSR model that has a pixel loss, without changing its code.

The pixel criterion is replaced by one that adds the critics to what it returns, so the model
optimises them; before the model logs, the clean pixel loss is put back and each critic gets an
entry of its own. A critic is judged against what the model gives its pixel loss: RealESRGANModel
gives the USM-sharpened ground truth unless `l1_gt_usm: False`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor

from perceptloss.errors import ConfigError
from perceptloss.integrations.basicsr.metrics import prepare_metrics
from perceptloss.integrations.basicsr.options import Plan, patch_size, read_plan
from perceptloss.integrations.basicsr.scores import Kept
from perceptloss.integrations.basicsr.slot import CriticSlot
from perceptloss.integrations.hosts import HostLoss
from perceptloss.integrations.probe import probe
from perceptloss.loss.terms import Term
from perceptloss.output.files import replacing

__all__ = ["Guest", "with_critics"]

_HOOKED = ("optimize_parameters", "reduce_loss_dict", "validation", "save_training_state", "resume_training")


class Guest:
    """The critics of one BasicSR model: reads its options, takes a slot, stands before two methods.

    The methods are replaced in the instance, not in a subclass, so that it does not matter which
    class of a user's hierarchy defines them.

    Args:
        model: A BasicSR model before its initialisation.
        opt: Its options; what they leave open about pixel loss and metrics is filled in.

    Raises:
        ConfigError: with every problem of the config.
    """

    def __init__(self, model: Any, opt: dict[str, Any]) -> None:
        judges = prepare_metrics(opt)
        self.model, self.name = model, type(model).__name__
        self.slot: CriticSlot | None = None
        self.plan: Plan | None = read_plan(opt) if opt.get("is_train") else None
        self.kept = Kept(judges, opt) if (opt.get("val") or {}).get("scores") else None
        self._is_alone = self.plan is not None and not opt["train"].get("pixel_opt")
        self._unused = 0  # iterations without an evaluation, until the first one
        if self._is_alone:  # SRModel insists on a pixel or a perceptual loss
            opt["train"]["pixel_opt"] = {"type": "L1Loss", "loss_weight": 0.0, "reduction": "mean"}
        for method in _HOOKED:
            if hasattr(model, method):
                setattr(model, method, partial(getattr(self, f"_{method}"), getattr(model, method)))

    def settle(self) -> None:
        """Take the slots of the initialised model, and prove that every critic sends a gradient.

        Raises:
            ConfigError: if the model has no pixel loss, or a loss type stands in a wrong slot.
            GradientError: naming each critic that sends none.
        """
        get_root_logger()  # which gives its logger a handler
        if self.plan is not None:
            self._take_slot(self.plan)
        problems = []
        for slot, loss in self._host_losses():
            wanted = "pair" if slot == "cri_perceptual" else "tensor"
            if loss.returns != wanted and self._is_stock():
                better = "CriticPerceptualLoss" if wanted == "pair" else "CriticLoss or the name of one critic"
                problems.append(f"{slot} cannot be of type {type(loss).__name__}; use {better}")
        if problems:
            raise ConfigError(problems, "the BasicSR config")
        for _, loss in self._host_losses():
            loss.step = 0
            loss.prove(self.model.device, patch_size(self.model.opt))

    def _is_stock(self) -> bool:
        """Whether the model is BasicSR's own, whose slots are known."""
        defining = next(c for c in type(self.model).__mro__ if "optimize_parameters" in vars(c))
        return defining.__module__.startswith("basicsr.")

    def _take_slot(self, plan: Plan) -> None:
        model = self.model
        pixel = getattr(model, "cri_pix", None)
        if pixel is None:
            raise ConfigError(
                [f"model {self.name} has no pixel loss (cri_pix), whose place the critics take"], "train.critics"
            )
        self.slot = model.cri_pix = CriticSlot(None if self._is_alone else pixel, plan).to(model.device)
        norms = plan.loss.check_gradient(*probe(plan.loss, model.device, patch_size(model.opt)))
        lines = [
            f"score_{term.label}: only watched, {term.signature}"
            if term.spec.monitor
            else f"l_{term.label}: {_size(term)}, {term.spec.shape} of {term.signature}, "
            f"gradient norm {norms[term.label]:.2e} on the test pattern"
            for term in plan.loss.terms
        ]
        if plan.relative is not None:
            lines.append(f"shares are those of the gradient beside {plan.relative}")
        if plan.alarms is not None:
            lines += plan.alarms.begin(self._trained())
        if "share" in plan.extras:
            lines.append(f"share_*: measured at each iteration that is a multiple of {plan.loss.share_every}")
        text = "".join(f"\n\t{line}" for line in lines)
        get_root_logger().info(f"Critics beside cri_pix of {self.name}, grad={plan.loss.grad}:{text}")

    def _host_losses(self) -> Iterator[tuple[str, HostLoss]]:
        for slot, value in vars(self.model).items():
            inner = value.pixel if isinstance(value, CriticSlot) else value
            if isinstance(inner, HostLoss):
                yield slot, inner

    def _trained(self) -> set[str]:
        """Names of the critics that are optimised, in whatever slot."""
        losses = [host.criterion for _, host in self._host_losses()]
        losses += [] if self.plan is None else [self.plan.loss]
        return {term.spec.card.name for loss in losses for term in loss.terms if not term.spec.monitor}

    def _optimize_parameters(self, inner: Callable[[int], None], current_iter: int) -> None:
        for _, loss in self._host_losses():
            loss.step = current_iter
        if self.slot is None:
            return inner(current_iter)
        self.slot.begin(current_iter)
        if self.slot.artefacts:
            with torch.no_grad():
                self.slot.steady = self.model.net_g_ema(self.model.lq).float()
        inner(current_iter)
        self._expect_use(self.slot, current_iter)
        learned = self.slot.learn()
        if learned and hasattr(self.model, "log_dict"):
            self.model.log_dict.update(learned)

    def _expect_use(self, slot: CriticSlot, current_iter: int) -> None:
        """Stop a run whose model never evaluates the slot: it would train without critics in silence."""
        if slot.calls:
            self._unused = -1
        elif self._unused >= 0:
            self._unused += 1
            first, period = getattr(self.model, "net_d_init_iters", 0), getattr(self.model, "net_d_iters", 1)
            if self._unused > period and current_iter > first + period:
                raise ConfigError(
                    [f"model {self.name} never evaluates cri_pix, so the critics train nothing"], "train.critics"
                )

    def _validation(
        self, inner: Callable[..., None], dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False
    ) -> None:
        name, kept = dataloader.dataset.opt["name"], self.kept
        spending, alarms = (None, None) if self.plan is None else (self.plan.spending, self.plan.alarms)
        with nullcontext() if alarms is None else alarms.following(self.model, name, current_iter, tb_logger):
            with nullcontext() if kept is None else kept.listening(self.model, self._trained(), current_iter, name):
                inner(dataloader, current_iter, tb_logger, save_img)
            if spending is None or not spending.follow(self.model, name, current_iter, tb_logger):
                return
            if (file := self._state_file(current_iter)).is_file():  # BasicSR saves before it validates
                self._save_critics(file)

    def _save_training_state(self, inner: Callable[[int, int], None], epoch: int, current_iter: int) -> None:
        inner(epoch, current_iter)
        if self.plan is None or current_iter == -1:
            return
        if self.plan.loss.is_learning:
            self._save_critics(self._state_file(current_iter))
        if self.plan.alarms is not None:
            self.plan.alarms.save(current_iter)

    def _save_critics(self, file: Path) -> None:
        assert self.plan is not None
        with replacing(file) as draft:
            torch.save(self.plan.loss.state_dict(), draft)

    def _resume_training(self, inner: Callable[[dict[str, Any]], None], resume_state: dict[str, Any]) -> None:
        inner(resume_state)
        if self.plan is not None and self.plan.alarms is not None:
            self.plan.alarms.resume(resume_state["iter"])
        if self.slot is None or not self.slot.critics.is_learning:
            return
        file = self._state_file(resume_state["iter"])
        if not file.is_file():
            raise ConfigError(
                [f"{file} is missing, which holds what critics had learned: keep it beside the .state file"], "resuming"
            )
        state = torch.load(file, map_location=self.model.device, weights_only=True)
        self.slot.critics.load_state_dict(state)

    def _state_file(self, iteration: int) -> Path:
        """Where this process keeps what its critics have learned, beside BasicSR's own state."""
        folder = Path(self.model.opt["path"]["training_states"])
        return folder / f"{iteration}.critics{self.model.opt['rank']}"

    def _reduce_loss_dict(self, inner: Callable[..., dict[str, float]], losses: dict[str, Tensor]) -> dict[str, float]:
        if self.slot is None:
            return inner(losses)
        log = inner(self.slot.untangle(losses))
        log.update(self.slot.watched())
        return log


def _size(term: Term) -> str:
    spec = term.spec
    how = f"weight {spec.weight:g}" if spec.share is None else f"share {spec.share:g}"
    return f"{how}, learning" if spec.joint is not None else how


@cache
def with_critics(model: Any) -> type:
    """A subclass of a BasicSR model that reads `train.critics` and completes `val.metrics`."""
    if "_hosts_critics" in vars(model):
        return model

    class Host(model):
        _hosts_critics = True

        def __init__(self, opt: dict[str, Any]) -> None:
            if hasattr(self, "_guest"):  # the class derives from another one of these
                super().__init__(opt)
                return
            self._guest = Guest(self, opt)
            super().__init__(opt)
            self._guest.settle()

    Host.__name__, Host.__qualname__, Host.__doc__ = model.__name__, model.__qualname__, model.__doc__
    return Host
