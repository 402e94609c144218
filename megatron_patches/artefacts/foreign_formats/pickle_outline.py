"""What a file of `torch.save` holds, without running any of it: the step that it states, and names and shapes of its
tensors. Torch-free.

Whatever the pickle within the zip names, a class or a function, an inert object of ours stands for it: nothing is
imported, nothing is called. Tensors' numbers are not read.
"""

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable, shortened

_PICKLE_BYTES = 16 << 20
"""largest pickle that is read, in some 10 s; that of a model of 10,000 tensors has 2 MB"""
_CONTAINERS = 500
_STEPS = 10**10
_MODEL_KEYS = ("state_dict", "module", "model", "language_model", "encoder")
"""where Lightning, DeepSpeed and Megatron keep the weights"""


@dataclass(frozen=True)
class Outline:
    """What one file says of itself."""

    step: int | None
    """`global_step` or `iteration`; None where it states none"""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """of the model's tensors, by name; one that shares its storage with another counts once"""

    @property
    def parameters(self) -> int:
        """Elements of all these tensors."""
        return sum(_product(shape) for shape in self.shapes.values())


def read_outline(path: Path) -> Outline:
    """The outline of a file of torch.save, as torch has written them since version 1.6.

    Raises:
        Missing: there is no such file.
        Damaged: it is no such file, or is cut short.
        Refused: it is no plain file, or its pickle is larger than any checkpoint's.
    """
    shown = printable(path)
    with open_plain(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                name = next((each for each in archive.namelist() if each.endswith("/data.pkl")), None)
                if name is None:
                    raise Damaged(f"{shown} is no file of torch.save: it has no data.pkl")
                with archive.open(name) as member:
                    content = member.read(_PICKLE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise Damaged(f"{shown} is no file of torch.save ({shortened(error, 80)})") from None
    if len(content) > _PICKLE_BYTES:
        raise Refused(f"{shown} holds a pickle of more than {_PICKLE_BYTES:,} bytes, too large to look into")
    try:
        found = _Inert(io.BytesIO(content)).load()
    except Exception as error:  # noqa: BLE001 - foreign opcodes may fail on the inert objects in any way
        raise Damaged(f"{shown} holds a pickle that cannot be read ({type(error).__name__})") from None
    return _outline(found)


def refuse_cut(path: Path) -> None:
    """Look at a file's ends alone, which costs the same for any size.

    Raises:
        Damaged: it is empty, or begins as torch.save begins a file and does not end so.
    """
    with open_plain(path) as file:
        beginning = file.read(4)
        if not beginning:
            raise Damaged("is empty; copy it again")
        if beginning == b"PK\x03\x04" and not zipfile.is_zipfile(file):
            raise Damaged("is cut short: the list of a zip file's members, which is its end, is missing; copy it again")


def _outline(found: Any) -> Outline:
    if not isinstance(found, dict):
        return Outline(None)
    stated = [whole_of(found.get(key), _STEPS) for key in ("global_step", "global_steps", "iteration")]
    step = next((each for each in stated if each is not None), None)
    model = next((found[key] for key in _MODEL_KEYS if isinstance(found.get(key), dict)), found)
    shapes: dict[str, tuple[int, ...]] = {}
    storages: set[tuple[str, int]] = set()
    for name, tensor in _tensors(model, "", set()):
        if tensor.place not in storages:
            storages.add(tensor.place)
            shapes[name] = tensor.shape
    return Outline(step, shapes)


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    place: tuple[str, int]
    """storage, and where in it the tensor begins"""


def _tensors(value: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, _Tensor]]:
    """Each container is looked into once: a small pickle may hold one of them a billion times."""
    if isinstance(value, _Tensor):
        yield prefix, value
    elif isinstance(value, dict) and id(value) not in seen and len(seen) < _CONTAINERS:
        seen.add(id(value))
        for key, each in value.items():
            yield from _tensors(each, f"{prefix}.{key}" if prefix else str(key), seen)


class _Object(dict[Any, Any]):
    """Stands for an object of any class: it takes what a pickle puts into it, and does nothing."""

    def __new__(cls, *arguments: Any, **named: Any) -> "_Object":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: Any) -> None:
        """An attribute changes nothing."""

    def append(self, value: Any) -> None:
        """As of a list."""

    def extend(self, values: Any) -> None:
        """As of a list."""

    def add(self, value: Any) -> None:
        """As of a set."""


def _tensor(storage: Any = None, offset: Any = 0, size: Any = (), *rest: Any, **named: Any) -> Any:
    shape = tuple(whole_of(each) for each in size) if isinstance(size, tuple) else (None,)
    known = tuple(each for each in shape if each is not None)
    if len(known) != len(shape) or not isinstance(storage, str) or whole_of(offset) is None:
        return _Object()
    return _Tensor(known, (storage, offset))


def _parameter(data: Any = None, *rest: Any) -> Any:
    return data


class _Inert(pickle._Unpickler):
    """Reads opcodes; every name becomes one of the stand-ins above.

    Python's own unpickler in C would hash keys that are tuples of tuples of tuples: 40 opcodes would take years.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _parameter
        return _Object

    def persistent_load(self, pid: Any) -> Any:
        """A storage: its key; nothing of it is read."""
        return pid[2] if isinstance(pid, tuple) and len(pid) > 2 and isinstance(pid[2], str) else ""

    def _put(self, target: Any, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if isinstance(key, (str, int, type)) else _Object()] = value

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._put(self.stack[-1], items)

    def load_dict(self) -> None:
        made: dict[Any, Any] = {}
        self._put(made, self.pop_mark())
        self.append(made)

    def load_set(self) -> None:
        self.append(_Object())

    def load_items_of_set(self) -> None:
        self.pop_mark()

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(_Object())

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.EMPTY_SET[0]] = load_set
    dispatch[pickle.ADDITEMS[0]] = load_items_of_set
    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
