"""Patch: of megatron-core only the modules are imported that are named, not all that its packages bring along.

Why: `megatron/core/__init__.py` (0.16.1) imports the whole library, and so do those of three packages within it: their
inference brings wandb, their timers TensorBoard, their Transformer Engine extension the fused layers, whose functions
go through `torch.compile` as they are defined, which brings TorchDynamo and inductor; and `utils.py` brings DTensor
with sympy. Groups and layers of tensor parallelism, all that is used here, need none of it. Each rank imports
megatron-core in 0.07 s of CPU time in place of 5.9 s, of which TorchDynamo is 2.2 s.
No longer needed when `import megatron.core.tensor_parallel.layers` loads none of these by itself.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_WAITING = ("megatron.core", "megatron.core.tensor_parallel", "megatron.core.dist_checkpointing")
"""packages whose own code runs when something of them is asked for that was not imported"""
_DROPPED = ("megatron.core.transformer", "megatron.core.transformer.utils")
"""imported for one function that names tensors in checkpoints, then forgotten: they lack what torch.compile makes"""
_ABSENT = ("transformer_engine", "torch.distributed._tensor")
"""what megatron-core takes where it is there: these modules of it do without for good, also where DTensors come by"""


@contextmanager
def narrow_import() -> Iterator[None]:
    """Within it a module of megatron-core is imported with what it names itself, and no package's own code runs.

    Afterwards everything can be imported as ever, by any name. Where megatron-core has been imported before, there is
    nothing to spare, and nothing is changed.
    """
    if "megatron.core" in sys.modules:
        yield
        return
    with _absent(_ABSENT), _without_packages_code():
        from megatron.core import parallel_state  # noqa: F401  # before `utils`: each imports the other
        from megatron.core.jit import disable_jit_fuser, enable_jit_fuser

        disable_jit_fuser()  # its own switch; else activations go through torch.compile as they are defined
        try:
            yield
        finally:
            enable_jit_fuser()


@contextmanager
def _absent(names: Sequence[str]) -> Iterator[None]:
    """Importing these raises ModuleNotFoundError, but for those that are loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is Python's sign for it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _without_packages_code() -> Iterator[None]:
    packages = [_package_without_its_code(name) for name in (*_WAITING, _DROPPED[0])]
    try:
        yield
    finally:
        for name in _DROPPED:
            sys.modules.pop(name, None)
        core, *_, transformer = packages
        if vars(core).get("transformer") is transformer:
            del core.transformer
        for package in packages[:-1]:
            package.__class__ = _WaitingPackage


def _package_without_its_code(name: str) -> ModuleType:
    """A package of which modules can be imported, though its `__init__.py` has not run."""
    spec = find_spec(name)
    assert spec is not None, "setup.py requires megatron-core"
    package = sys.modules[name] = module_from_spec(spec)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, package)
    return package


class _WaitingPackage(ModuleType):
    """A package that runs its own code as soon as it is asked for what it does not have."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None and self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
