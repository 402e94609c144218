"""Where the streams of a run are read on from: kept in every checkpoint, on any number of ranks."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.samples.skipping import SkippedSamples
from data_tools.streams.position import StreamPosition
from data_tools.text_sources.places import STATE_KEY, kept_places, places_of, places_to_json
from megatron_patches.callbacks.callback import Callback, TrainingLoop
from megatron_patches.checkpoint.resume_check import newest_whole, saved_steps
from megatron_patches.errors import TrainyardError
from megatron_patches.objectives.dealt_samples import DealtSamples
from megatron_patches.run.progress import Message


class StreamPositions(Callback):
    """Keeps, of each text source, a place at or before its next sample. What is read again from there is one block of
    documents."""

    state_key = STATE_KEY

    def __init__(self, samples: DealtSamples, skipped: SkippedSamples) -> None:
        self._samples = samples
        self._skipped = skipped
        self._trainer: TrainingLoop | None = None
        self._known: dict[str, StreamPosition] = {}

    def on_start(self, trainer: TrainingLoop) -> None:
        """Say which streams are read from their beginning although the run has read of them."""
        self._trainer = trainer
        self._samples.begin_from(self._known)
        samples, numbers = self._samples.samples, self._next_numbers()
        for number in samples.streams:
            name = samples.sources[number].name
            if numbers[number] and name not in self._known:
                trainer.emit(Message(
                    f"the checkpoint does not say where the text of source {name} is read on from: it is read from its "
                    f"beginning, and its first {numbers[number]:,} samples are passed over"
                ))  # fmt: skip

    def state(self) -> dict[str, Any]:
        """By the source's name."""
        return places_to_json(self._samples.positions(self._next_numbers()))

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises Damaged where a place cannot be read."""
        self._known = places_of(state)

    def read_ahead(self, checkpoints: Path, samples_of_a_step: int) -> None:
        """On rank 0, before the run is resumed: read on from where its newest checkpoint seems to end, while other
        things are made. `on_start` corrects it."""
        with suppress(TrainyardError):  # whoever resumes is told, and may fall back to another one
            newest = newest_whole(saved_steps(checkpoints, True))
            self._samples.begin_from(kept_places(newest.folder) if newest else {})
            consumed = newest.samples if newest else 0
            self._samples.read_ahead(self._skipped.places(np.arange(consumed, consumed + samples_of_a_step)))

    def _next_numbers(self) -> list[int]:
        """How many samples the run has passed, for each source."""
        assert self._trainer is not None
        passed = self._skipped.reached(self._trainer.progress.samples)
        found: list[int] = self._samples.samples.stages.counts(passed).tolist()
        return found
