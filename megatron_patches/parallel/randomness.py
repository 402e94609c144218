"""Dropout's random numbers: a pure function of (seed, step, place in the layout).

There is no generator state to save: a resumed run seeds step n exactly as the uninterrupted one did. Features that all
tensor-parallel ranks hold are dropped alike on all of them; features that each holds alone are drawn apart. What is
computed again in a backward pass draws what it drew the first time.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from megatron_patches.parallel.layout import Coordinates
from megatron_patches.parameters.info import derive_seed


class StepRandomness:
    """Seeds torch's generators at the start of each step."""

    def __init__(self, seed: int, coordinates: Coordinates, device: torch.device) -> None:
        self._seed = seed
        self._coordinates = coordinates
        self._device = device
        self._split_state = torch.empty(0, dtype=torch.uint8)

    def start_step(self, step: int) -> None:
        """Seed both streams for one optimizer step."""
        key = (self._seed, "step", step, self._coordinates.data, self._coordinates.pipeline)
        self._start(derive_seed(*key, "tensor", self._coordinates.tensor))
        self._split_state = self._state()
        self._start(derive_seed(*key))

    @contextmanager
    def split_features(self) -> Iterator[None]:
        """Within it, draws differ between tensor-parallel ranks."""
        shared = self._state()
        self._restore(self._split_state)
        try:
            yield
        finally:
            self._split_state = self._state()
            self._restore(shared)

    def replay(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts for a first computation that starts now, and for its repetition later: it draws the same.

        The repetition leaves both streams as it found them. (The `context_fn` of `torch.utils.checkpoint`.)
        """
        return nullcontext(), self._repeated(self._state(), self._split_state)

    @contextmanager
    def _repeated(self, shared: torch.Tensor, split: torch.Tensor) -> Iterator[None]:
        later = self._state(), self._split_state
        self._restore(shared)
        self._split_state = split
        try:
            yield
        finally:
            self._restore(later[0])
            self._split_state = later[1]

    def _start(self, seed: int) -> None:
        """As `torch.manual_seed`, which asks every kind of device there might be: 0.9 ms on a CPU, twice a step."""
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed_all(seed)

    def _state(self) -> torch.Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _restore(self, state: torch.Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
