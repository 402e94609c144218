"""Reading files of torch.save that others made: pickles, which may run any program unless what they name is limited.

torch's restricted reader builds tensors and plain containers. Of what else the files of DeepSpeed and Megatron hold,
each type is named below, and even then an inert object of ours stands for it: none of their code is imported or run.
"""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.exchange.pickle_bounds import refuse_expanding, refuse_inflated
from megatron_patches.foreign.printable import printable, shortened


class Record:
    """Stands for an object of another program: what it was made from, and its attributes."""

    def __init__(self, *made_from: Any) -> None:
        self.made_from = made_from

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class FragmentAddress(Record):
    """DeepSpeed's: where in a rank's partition a parameter's elements lie (`start`, `numel`)."""

    start: int
    numel: int


class Settings(Record):
    """argparse's Namespace: Megatron saves its command line."""


class EnumMember(Record):
    """What Python 3.11.0 to 3.11.3 write for a member of an enum: `getattr(ENUM, NAME)`; DeepSpeed's stages alone."""

    def __new__(cls, *made_from: Any) -> Any:
        if made_from[:1] == (int,) and made_from[1:] and made_from[1] in _ZERO_STAGES:
            return _ZERO_STAGES.index(made_from[1])
        return super().__new__(cls)


_ZERO_STAGES = ("disabled", "optimizer_states", "gradients", "weights")
"""members of DeepSpeed's ZeroStageEnum, for which int stands, by their values from 0"""

STAND_INS: dict[str, type] = {
    "builtins.getattr": EnumMember,
    "argparse.Namespace": Settings,
    "deepspeed.utils.tensor_fragment.fragment_address": FragmentAddress,
    "deepspeed.runtime.zero.config.ZeroStageEnum": int,
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": Record,
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": Record,
    "deepspeed.checkpoint.universal_checkpoint.SubparamShape": Record,
    # of Megatron's settings
    "megatron.enums.PositionEmbeddingType": Record,
    "megatron.model.enums.PositionEmbeddingType": Record,
    "pathlib.PosixPath": Record,
    # the states of random generators
    "numpy.core.multiarray._reconstruct": Record,
    "numpy._core.multiarray._reconstruct": Record,
    "numpy.core.multiarray.scalar": Record,
    "numpy._core.multiarray.scalar": Record,
    "numpy.dtype": Record,
    "numpy.ndarray": Record,
}
"""types that real files hold (a test writes such files), and what stands for them"""


def read_pickle(path: Path, trust: bool) -> Any:
    """What torch.save wrote, tensors on the CPU and mapped from the file, so that memory holds what is used of them.

    With `trust` the file is unpickled as it is, and whatever program is hidden in it runs.

    Raises:
        Refused: the file names a type that is not known to be harmless, or stands for more than it holds.
        Damaged: it is cut off, or no file of torch.save.
    """
    shown = printable(path)
    try:
        mapped = zipfile.is_zipfile(path)  # torch before 1.6 wrote another format, which is read into memory
        with _stand_ins_alone():
            if mapped and not trust:
                refuse_inflated(path)
                _refuse_unknown_types(path)
            content = torch.load(path, map_location="cpu", mmap=mapped, weights_only=not trust)
    except TrainyardError:
        raise
    except pickle.UnpicklingError as error:
        if "unsupported" in str(error).lower():  # torch's word for what its restricted reader does not build
            raise Refused(f"{shown} cannot be read safely: {_first_line(error)}. {_WAYS_OUT}") from error
        raise _damaged(shown, error) from error
    except OSError as error:
        raise Refused(f"{shown} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise Refused(f"{shown} asks for more memory than there is, and is not read") from error
    except Exception as error:  # a pickle is a program: its reader stumbles in every way that Python has
        raise _damaged(shown, error) from error
    if not trust:
        refuse_expanding(content, shown)
    return content


def _damaged(shown: str, error: BaseException) -> Damaged:
    return Damaged(
        f"{shown} cannot be read ({_first_line(error)}); it is damaged, or no file of torch.save: copy it again"
    )


@contextmanager
def _stand_ins_alone() -> Iterator[None]:
    """Within it torch's restricted reader knows our stand-ins and nothing that other libraries have allowed it.

    transformers and others allow numpy's own functions, which would be called in place of a stand-in of the same name.
    """
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(kind, name) for name, kind in STAND_INS.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


_WAYS_OUT = (
    "Ask for the checkpoint in another format. Only if you would run any program that its author sends you: "
    "--trust-pickle reads it as it is"
)


def _refuse_unknown_types(path: Path) -> None:
    unknown = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - STAND_INS.keys()
    if unknown:
        raise Refused(
            f"{printable(path)} names {shortened(', '.join(sorted(unknown)))}, not known to be harmless: reading it "
            f"could run any program. {_WAYS_OUT}"
        )


def _first_line(error: BaseException) -> str:
    """The line that says what was wrong; torch's restricted reader puts advice to trust the file before it."""
    text = str(error).strip() or type(error).__name__
    lines = text.rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
    unsupported = [line for line in lines if "unsupported" in line.lower()]
    return shortened([*unsupported, *lines][0])
