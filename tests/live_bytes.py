"""Bytes of tensors that are alive, on one rank of a test's processes: what a GPU's allocator would tell."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def watch() -> Any:
    """A context in which every tensor that an operation allocates is counted, for as long as it lives.

    `live()` are the bytes that live now, `peak` the most there were at once, `without(tensors)` those of no given
    tensor. What a kernel allocates for itself is not seen.
    """
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
            self.peak = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            known = _addresses((args, kwargs))
            new = False
            for tensor in tree_leaves(result):
                if _is_tensor(tensor) and tensor.untyped_storage()._cdata not in known:
                    storage = tensor.untyped_storage()
                    self.storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    new = True
            if new:
                self.peak = max(self.peak, self.live())
            return result

        def live(self) -> int:
            self.storages = {key: (ref, size) for key, (ref, size) in self.storages.items() if not ref.expired()}
            return sum(size for _, size in self.storages.values())

        def without(self, tensors: list[torch.Tensor]) -> int:
            known = _addresses(tensors)
            gc.collect()  # what only a cycle of dead objects holds is not kept
            time.sleep(0.02)  # nor is what gloo's thread has sent, and lets go a moment after the wait for it
            self.live()
            return sum(size for key, (_, size) in self.storages.items() if key not in known)

    def _addresses(tensors: Any) -> set[int]:
        return {tensor.untyped_storage()._cdata for tensor in tree_leaves(tensors) if _is_tensor(tensor)}

    def _is_tensor(value: Any) -> bool:
        import torch

        return isinstance(value, torch.Tensor) and value.device.type != "meta"

    return Watch()
