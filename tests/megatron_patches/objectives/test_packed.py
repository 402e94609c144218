"""Texts in one pack, whose boundaries attention and positions know, have the losses that each has in a sample alone."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.plans.planned_samples import PlannedSamples
from data_tools.run_data import RunData
from data_tools.samples.source import Sample
from megatron_patches.checkout import CHECKOUT
from megatron_patches.objectives.batches import stacked
from megatron_patches.objectives.build import build_objective
from megatron_patches.run.config import RunConfig
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides

PACKED = overrides(data__samples="packs", data__sequence_length=255, data__split=100, evaluation="null")
POSITIONS = {
    "learned": overrides(model__position_embedding="learned", objective__reset_positions="true"),
    "rotary": overrides(model__position_embedding="rotary"),
}
OBJECTIVES = {
    "causal": overrides(objective="{name: causal, reset_attention: true}"),
    "prefix_lm": overrides(objective="{name: prefix_lm, reset_attention: true}"),
}
CASES = {
    **{f"{objective}, {kind}": (objective, kind, "text") for objective in OBJECTIVES for kind in POSITIONS},
    "answers": ("causal", "learned", "pairs"),
}


def half_of_each(documents: Any, samples: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """In place of prefixes that are drawn by sample and place in it: half of each document."""
    return 1 + documents.length // 2


def measure(configs: dict[str, RunConfig]) -> dict[str, tuple[int, float, float]]:
    """Of a pack of each run: its texts, its loss, and the mean of its texts' losses by their targets."""
    from megatron_patches.objectives import prefix_lm
    from megatron_patches.objectives.batches import share_targets
    from tests.small_engine import SmallEngine, groups_of

    prefix_lm.prefix_lengths = half_of_each
    groups, found = groups_of(next(iter(configs.values()))), {}
    for name, config in configs.items():
        small = SmallEngine(config, groups)

        def loss_of(item: Sample, small: SmallEngine = small) -> Any:
            number = np.zeros(1, dtype=np.int64)
            batch = small.batches.objective(stacked([item], number, small.config.model.vocabulary), number)
            return small.engine.evaluate(share_targets([batch], groups))["loss"]

        samples = small.batches._samples.sources[0].samples
        pack = max((samples[each] for each in range(10)), key=lambda sample: sample["segments"].max())
        texts = int(pack["segments"].max()) + 1
        alone = [loss_of(one_text(pack, text)) for text in range(texts)]
        together = loss_of(pack)
        assert together.targets == sum(each.targets for each in alone)
        found[name] = texts, together.mean, sum(each.mean * each.targets for each in alone) / together.targets
        small.batches.close()
    return found


def one_text(pack: Sample, text: int) -> Sample:
    """A sample of the same length with one of a pack's texts, at its beginning."""
    inside = pack["segments"] == text
    alone = {name: np.zeros_like(values) for name, values in pack.items()}
    for name, values in pack.items():
        alone[name][: inside.sum()] = values[inside]
    alone["segments"][:] = np.where(np.arange(len(inside)) < inside.sum(), 0, -1)
    return alone


@pytest.fixture(scope="module")
def measured(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, float, float]]:
    configs = {}
    for name, (objective, positions, dataset) in CASES.items():
        path = [f"--data.path={small_data.folder}/{dataset}"]
        words = [*PACKED, *OBJECTIVES[objective], *POSITIONS[positions], *path]
        configs[name] = small_data.run(tmp_path_factory.mktemp("run"), words)
    (found,) = run_on_ranks(measure, 1, configs)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_pack_has_the_loss_of_its_texts(measured: dict[str, tuple[int, float, float]], case: str) -> None:
    texts, together, alone = measured[case]
    assert texts > 2
    assert together == pytest.approx(alone, rel=1e-5)


def test_cases_are_different_losses(measured: dict[str, tuple[int, float, float]]) -> None:
    assert len({together for _, together, _ in measured.values()}) == len(CASES)


def test_answers_are_as_many_as_the_index_says(small_data: SmallData, tmp_path: Path) -> None:
    """Counted from the bytes of the index: of each stretch that a pack is made of, answers behind its first token."""
    config = small_data.run(tmp_path, [*PACKED, f"--data.path={small_data.folder}/pairs"])
    packs = RunData(config.data, CHECKOUT, config.lengths).sources[0].training.samples
    objective, vocabulary, counted = build_objective(config.objective, 7, None), config.model.vocabulary, 0.0
    is_answer, by_hand = answers_by_bytes(small_data.folder / "pairs.idx"), 0
    assert isinstance(packs, PlannedSamples)
    for number in range(len(packs)):
        numbers = np.array([number])
        counted += objective(stacked([packs[number]], numbers, vocabulary), numbers).weights.sum().item()
        by_hand += sum(int(is_answer[first + 1 : end].sum()) for first, end in packs.stretches(number))
    assert counted == by_hand > 1000


def answers_by_bytes(index: Path) -> NDArray[np.bool_]:
    """Whether each token of a dataset of 16-bit ids is of an odd sequence of its document, read as Megatron wrote it:
    a head of 34 bytes, lengths (32 bits), first bytes and documents (64 bits each).
    """
    content = index.read_bytes()
    sequences, documents = struct.unpack("<QQ", content[18:34])
    lengths = np.frombuffer(content, "<i4", sequences, 34)
    pointers = np.frombuffer(content, "<i8", sequences, 34 + 4 * sequences)
    firsts = np.frombuffer(content, "<i8", documents, 34 + 12 * sequences)
    found = np.zeros(lengths.sum(), dtype=bool)
    for first, end in pairwise(firsts.tolist()):
        for sequence in range(first + 1, end, 2):
            found[pointers[sequence] // 2 :][: lengths[sequence]] = True
    return found
