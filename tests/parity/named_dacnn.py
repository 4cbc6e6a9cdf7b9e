"""How the case of DACNN is read."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from perceptloss.critic import Critic
from perceptloss.critics.dacnn import DACNN

from .named import NamedCase, Reader, System, gradient


def _tap(name: str) -> Reader:
    def read(critic: Critic, case: NamedCase, image: str) -> Tensor:
        assert isinstance(critic, DACNN)
        return critic.trunk(case.image(image), (name,))[name]

    return read


def _output(part: Callable[[DACNN], nn.Module]) -> Reader:
    """What a part of the critic returns while it scores."""

    def read(critic: Critic, case: NamedCase, name: str) -> Tensor:
        assert isinstance(critic, DACNN)
        found: list[Tensor] = []
        handle = part(critic).register_forward_hook(lambda module, given, out: found.append(out))
        critic(case.image(name))
        handle.remove()
        return found[0]

    return read


SYSTEM = System(
    "dacnn",
    readers={
        "score": lambda critic, case, name: critic(case.image(name)),
        "sda_level2": _tap("synthetic.block2"),
        "sda_level3": _tap("synthetic.block4"),
        "sda_level4": _tap("synthetic.block10"),
        "sda_level5": _tap("synthetic.head"),
        "msfb11": _output(lambda critic: critic.authentic[0]),
        "wgb1": _output(lambda critic: critic.gates[0]),
        "msfb_4": _output(lambda critic: critic.fused[3]),
        "fc1": _output(lambda critic: critic.head[0]),
        "grad_score": gradient(lambda critic, x: critic(x)),
    },
)
