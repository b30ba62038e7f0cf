"""An accelerator in imitation: real numbers behind tensors that say they are on the device `meta`.

Like MPS it has no float64, and like every accelerator it takes no tensor of the CPU but a scalar. What would make the
host wait for a real one is counted.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
TO_DEVICE, FROM_DEVICE = "copies to the device", "copies from the device"
aten = torch.ops.aten
_TAKES_BOTH = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor, aten.index_put_.default}
# A mask as an index (aten.index.Tensor) waits as well: it is looked up how many rows it has.
_WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.bincount.default}


class OnDevice(torch.Tensor):
    """A tensor on the accelerator; `inner`, on the CPU, has its numbers."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: outside of the imitation")


class Accelerator(TorchDispatchMode):
    """While it is entered, `DEVICE` is that accelerator. waits: how often the host waited for it, by operation."""

    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        with self:  # in inference mode operations arrive whole that otherwise are made of others
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        device = kwargs.get("device", next((x.device for x in given if isinstance(x, OnDevice)), torch.device("cpu")))
        there = torch.device(device or "cpu") == DEVICE
        self._check(func, given, there)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        inner_args, inner_kwargs = tree_map_only(OnDevice, lambda x: x.inner, (args, kwargs))
        found = func(*inner_args, **inner_kwargs)
        if func._schema.is_mutable:  # what was given has changed
            return None if found is None else kwargs.get("out", args[0])
        with torch.inference_mode(False):  # torch makes no views, of weights for one, that are of that mode
            return tree_map_only(torch.Tensor, OnDevice, found) if there else found

    def _check(self, func, given, there):
        mixed = [x for x in given if not isinstance(x, OnDevice)]
        if any(x.device == DEVICE for x in mixed):
            raise RuntimeError(f"{func}: outside of the imitation, such as a list for an index, which is copied")
        if any(isinstance(x, OnDevice) for x in given):
            if func in _WAITS or (func == aten.index.Tensor and any(x.dtype == torch.bool for x in given[1:])):
                self.waits[str(func)] += 1
            if func not in _TAKES_BOTH and any(x.ndim for x in mixed):
                raise RuntimeError(f"{func}: Expected all tensors to be on the same device")
        if func in (aten._to_copy.default, aten.copy_.default):
            to_device = isinstance(given[0], OnDevice) if func == aten.copy_.default else there
            if to_device != isinstance(given[-1], OnDevice):
                self.waits[TO_DEVICE if to_device else FROM_DEVICE] += 1
