"""What lm-eval does beside asking, kept from whoever calls it: prints, log lines, seeds, caches, the network."""

import contextlib
import logging
import math
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.metrics
import numpy as np
import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session

from megatron_patches.foreign.printable import shortened

_LIBRARIES = ("transformers", "datasets", "accelerate", "huggingface_hub", "httpx", "filelock", "urllib3", "evaluate")
_PATIENCE = 5.0
"""seconds in which a hub that can be reached answers"""
Hear = Callable[[str], None]


@contextlib.contextmanager
def quiet(hear: Hear) -> Iterator[Hear]:
    """Nothing reaches the terminal but what is told through the `hear` that this gives.

    lm-eval's own warnings are told at the end, each once, with how often it came; lines of other libraries and progress
    bars are dropped. Errors come through as they are.
    """
    streams = sys.stdout, sys.stderr

    def heard(text: str) -> None:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            hear(text)

    warned = _Warned()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        for name in _LIBRARIES:
            stack.enter_context(replaced(logging.getLogger(name), "level", logging.ERROR))
        stack.enter_context(_heard_by(logging.getLogger("lm_eval"), warned))
        try:
            yield heard
        finally:
            for text in warned.told():
                heard(text)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute that is another one for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _Warned(logging.Handler):
    """Warnings by the line of code that gives them: a thousand items that are too long are one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: dict[tuple[str, int], list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._found.setdefault((record.pathname, record.lineno), []).append(record.getMessage())

    def told(self) -> Iterator[str]:
        for messages in self._found.values():
            more = f" ({len(messages) - 1:,} more like it)" if len(messages) > 1 else ""
            yield f"lm-eval warns: {shortened(' '.join(messages[0].split()), 400)}{more}"


@contextlib.contextmanager
def _heard_by(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """All that a logger says goes to one handler alone."""
    with (
        replaced(logger, "handlers", [handler]),
        replaced(logger, "propagate", False),
        replaced(logger, "level", logging.WARNING),
    ):
        yield


@contextlib.contextmanager
def as_seeded() -> Iterator[None]:
    """The random numbers that lm-eval's command line begins with; the caller's own come back."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    of_python, of_numpy = random.getstate(), np.random.get_state()  # lm-eval draws from the global generators
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


class _Endless:
    """`math`, whose `exp` is infinite where it overflows: lm-eval's perplexity raises there, and every other number of
    the task would be lost with it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(math, name)

    @staticmethod
    def exp(value: float) -> float:
        try:
            return math.exp(value)
        except OverflowError:
            return math.inf


@contextlib.contextmanager
def overflow_is_infinite() -> Iterator[None]:
    """lm-eval's metrics give infinity in place of an error."""
    with replaced(lm_eval.api.metrics, "math", _Endless()):
        yield


@contextlib.contextmanager
def local_files_alone() -> Iterator[None]:
    """Tasks of local files: no library asks the hub, and what `datasets` makes of the files is removed at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="trainyard-tasks-", ignore_cleanup_errors=True) as folder,
        replaced(datasets.config, "HF_DATASETS_CACHE", Path(folder)),
        _without_hub(),
    ):
        yield


@contextlib.contextmanager
def hub_if_reached() -> Iterator[None]:
    """The harness's own tasks: their datasets come from the cache, and what it lacks from the hub, if that answers.

    Without this, each file is asked for six times, which takes 24 s.
    """
    with contextlib.nullcontext() if _hub_answers() else _without_hub():
        yield


def _hub_answers() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # noqa: BLE001 - of whatever library the hub's client is made of; any answer counts
        return False
    return True


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    with replaced(constants, "HF_HUB_OFFLINE", True), replaced(datasets.config, "HF_HUB_OFFLINE", True):
        yield
