"""A processor that sums in another order, for `pytest --other-rounding`.

Results of kernels that are free to choose an order are moved by up to 4 eps: always the same way for the same call on
the same shapes and strides, another way for another shape and, for most kernels, another place in the result. Results
of few digits stay: they are exact in any order. What fails under it asks for bits that only one kernel gives.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OtherRounding"]

# their order of summing is free, and need not be the same for two samples
_FREE = """
    mm addmm bmm baddbmm addbmm mv addmv dot convolution convolution_backward _trilinear
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward
    native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward
    native_batch_norm native_batch_norm_backward _native_batch_norm_legit _native_batch_norm_legit_no_training
    upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d
    _fft_r2c _fft_c2r _fft_c2c var var_mean std std_mean norm linalg_vector_norm cumsum prod avg_pool2d
    avg_pool2d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _softmax _softmax_backward_data _log_softmax
    _log_softmax_backward_data logsumexp mse_loss _cdist_forward _euclidean_dist
""".split()  # noqa: SIM905
# the rows of one reduction are summed alike, and equal numbers have equal powers
_ALIKE = """
    sum mean exp log log1p expm1 pow sin cos atan2 tanh tanh_backward sigmoid sigmoid_backward erf gelu gelu_backward
    silu silu_backward elu softplus softplus_backward lgamma
""".split()  # noqa: SIM905
_HALF = {torch.float32: torch.bfloat16, torch.float64: torch.float32}
_MOVES = torch.rand(1 << 22, generator=torch.Generator().manual_seed(1)).mul_(2).sub_(1)


class OtherRounding(TorchDispatchMode):
    """Active, every result of such a kernel in fp32 and float64 is moved, on the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in _FREE + _ALIKE or func._overloadname.endswith("out"):
            return out
        if (
            name == "pow" and not isinstance(args[1], Tensor) and args[1] in (0.5, 2)
        ):  # a root or a product, rounded as IEEE says
            return out
        call = name, [(a.shape, _strides(a)) if isinstance(a, Tensor) else str(a) for a in args]
        if isinstance(out, Tensor):
            return _moved(out, call, name not in _ALIKE)
        return type(out)(_moved(part, (n, call)) for n, part in enumerate(out))


def _strides(a: Tensor) -> list[int]:
    return [stride for stride, size in zip(a.stride(), a.shape, strict=True) if size > 1]


def _moved(out: Any, call: Any, is_by_place: bool = True) -> Any:
    if type(out) is not Tensor or out.dtype not in _HALF or out.device.type != "cpu" or not out.numel():
        return out
    start = zlib.crc32(repr(call).encode()) % (len(_MOVES) // 2)
    count = out.numel() if is_by_place else 1
    moves = _MOVES[start : start + count]
    if len(moves) < count:
        moves = _MOVES.repeat(-(-(start + count) // len(_MOVES)))[start : start + count]
    factor = 1 + 4 * torch.finfo(out.dtype).eps * moves.to(out.dtype)
    moved = out * (factor.view(out.shape) if is_by_place else factor.item())
    return torch.where(out == out.to(_HALF[out.dtype]).to(out.dtype), out, moved)
