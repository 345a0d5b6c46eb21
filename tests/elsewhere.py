"""An accelerator made of the CPU, for machines that have none.

Within `accelerator()` tensors made with device "cuda" say that they are there, compute on the CPU,
and refuse what CUDA refuses: to be mixed with the CPU's tensors, to become NumPy arrays, and to be
filled by another device's generator; and, as MPS does, to be of 64-bit floats. So code that
forgets where its tensors are fails here, too.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("cuda", 0)
HERE = torch.device("cpu")

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
"""What may read from one device and write to another."""

INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
"""What takes the CPU's tensors as indices; their values are not excused."""


class Elsewhere(Tensor):
    """A tensor that says it is on the accelerator; its numbers are in `here`."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor, requires_grad: bool = False) -> "Elsewhere":
        """Wrap a CPU tensor."""
        if here.dtype == torch.float64:
            raise TypeError("MPS has no float64. Use float32 there, or compute on the CPU.")
        there = Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=THERE,
            requires_grad=requires_grad,
        )
        there.here = here
        return there

    def __tensor_flatten__(self) -> tuple[list[str], bool]:
        """Say where the numbers are, so that modules can be moved."""
        return ["here"], self.requires_grad

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: bool, size: Any, stride: Any) -> "Elsewhere":
        """Wrap the numbers again."""
        return Elsewhere(inner["here"], meta)

    def tolist(self) -> Any:
        """Return the numbers, as tensors of any device do."""
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as CUDA's tensors do."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation on the accelerator, or refuse it."""
        return run(func, args, kwargs or {})


class Accelerator(TorchDispatchMode):
    """Takes part in everything, so that tensors can be made on the accelerator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation where its tensors are."""
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run `func` on the CPU; what it returns is where its operands are, or where it says."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with Accelerator():  # made of others: those come here one by one
            return func.decompose(*args, **kwargs)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, Elsewhere) for x in tensors)
    if there:
        refuse_mixture(func, args, kwargs)
    device = kwargs.get("device")
    goal = THERE if there else HERE
    if device is not None:
        goal = torch.device(device)
        kwargs = kwargs | {"device": HERE}
    generator = kwargs.get("generator")
    if goal.type == "cuda" and generator is not None and generator.device.type != "cuda":
        raise RuntimeError(f"{func}: expected a 'cuda' generator, found '{generator.device}'")
    kwargs.pop("pin_memory", None)
    inner_args, inner_kwargs = tree_map(unwrapped, (args, kwargs))
    out = func(*inner_args, **inner_kwargs)
    if goal.type == "cuda":
        out = tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out)
        if there:
            return return_and_correct_aliasing(func, args, kwargs, out)
    if func is torch.ops.aten.copy_.default:
        return args[0]
    return out


def unwrapped(x: Any) -> Any:
    """Return the numbers of a tensor of the accelerator; anything else as it is."""
    return x.here if isinstance(x, Elsewhere) else x


def refuse_mixture(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Raise RuntimeError where CUDA would, on operands of two devices."""
    if func in COPIES:
        return
    if func in INDEXING:
        args = (args[0], *args[2:])  # indices may be the CPU's
    found = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if any(not isinstance(x, Elsewhere) and x.dim() > 0 for x in found):
        raise RuntimeError(f"{func}: expected all tensors on one device, found cuda:0 and cpu")


@contextmanager
def accelerator() -> Iterator[str]:
    """Give this process an accelerator; yields its name."""
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    torch._C._ensureCUDADeviceGuardSet()  # without a GPU: nothing is asked of a driver
    torch._C._set_only_lift_cpu_tensors(True)  # numbers from Python come by way of the CPU
    torch.__future__.set_swap_module_params_on_conversion(True)  # modules can be moved
    try:
        with (
            patch("torch.cuda._lazy_init", lambda: None),
            patch("torch.cuda.is_bf16_supported", lambda **_: False),
            # Views of such tensors are not to be had in inference mode.
            patch("torch._C._InferenceMode", lambda on: torch.no_grad() if on else nullcontext()),
            Accelerator(),
        ):
            yield "cuda"
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_swap_module_params_on_conversion(swapping)
