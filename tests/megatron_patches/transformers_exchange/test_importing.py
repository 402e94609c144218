"""Models of transformers as artefacts that runs begin from: the same model, and the same training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.megatron_patches.transformers_exchange.folders import FAMILIES, automatic_model, make_folder, write_run
from tests.megatron_patches.transformers_exchange.masked_data import masked_data
from tests.ranks import run_on_ranks
from tests.small_training import SmallData

if TYPE_CHECKING:
    from torch import Tensor

    from megatron_patches.launch.init_from.resolution import StartingPoint
    from megatron_patches.run.config import RunConfig
    from megatron_patches.transformers_exchange.import_plan import ImportPlan

RUN = "tr900a-28K-imported"
# epsilon is far above the rounding of gradients: where one is about 0, its sign alone would decide the step
ADAMW = "--optimizer={name: adamw, learning_rate: 0.01, epsilon: 1e-3, weight_decay: 0.1, gradient_clip: 0}"
CASES = {
    **{family: (family, "float32", False, ()) for family in FAMILIES},
    "gpt2 bf16 in shards": ("gpt2", "bfloat16", True, ()),
    "llama bf16": ("llama", "bfloat16", False, ()),
    "llama AdamW": ("llama", "float32", False, (ADAMW,)),
}


def import_and_train(place: Path, data: SmallData) -> dict[str, Any]:
    """For each case the card, what the run says it begins from, and how far one step is from transformers' own."""
    os.environ |= {f"TRAINYARD_{name}": str(place / name.lower()) for name in ("RUNS", "CACHE", "DATA")}
    return {name: one_case(place / name.replace(" ", "-"), data, *case) for name, case in CASES.items()}


def one_case(
    place: Path, data: SmallData, family: str, dtype: str, shards: bool, settings: Sequence[str]
) -> dict[str, Any]:
    import torch

    from megatron_patches.checkpoint.initial_weights import load_initial_weights
    from megatron_patches.launch.init_from.resolution import find_starting_point
    from megatron_patches.parallel.process_groups import stop_process_groups
    from megatron_patches.run.reading import load_run
    from megatron_patches.run.run_directory import run_directory
    from megatron_patches.transformers_exchange.import_plan import open_data, plan_import
    from megatron_patches.transformers_exchange.importing import CardRequest, import_transformers
    from tests.small_engine import SmallEngine, groups_of

    if family == "eurobert":
        data = masked_data(place / "data", data)
    folder = make_folder(place / "model", family, data, dtype, shards)
    name = f"{RUN}-{place.name}"
    config = load_run(path := write_run(place / "tr900-tests", name, data, folder), settings)
    plan = plan_import(folder, config, open_data(config))
    target = run_directory(config).checkpoints / "weights-0000000000"
    done = import_transformers(plan, target, CardRequest("a test"))
    start = find_starting_point(f"{name}@0/weights", config, plan.data)
    groups = groups_of(config)
    try:
        small = SmallEngine(config, groups)
        load_initial_weights(start.weights, config, small.engine.state(), groups)
        batch = [each.to(torch.device("cpu")) for each in small.batches.at(0)]
        ((loss, _),) = small.train(1)
        small.batches.close()
        pieces = {piece.name: piece for piece in small.engine.state() if piece.kind == "weight"}
        updated = {name: piece.tensor.detach().float().clone() for name, piece in pieces.items()}
    finally:
        stop_process_groups()
    theirs, their_loss, before = plain_step(folder, family, batch, adamw=bool(settings))
    ours = {
        name: part
        for pair in plan.pairs
        for name, part in zip(
            pair.theirs,
            pair.split(updated[pair.ours].view({row.name: row.shape for row in config.parameters}[pair.ours])),
            strict=True,
        )
    }
    return {
        "card": done.card,
        "id": done.manifest.id,
        "begins": (start.weights.id, start.lines[0]),
        "loss": (loss, their_loss),
        "names": (sorted(ours), sorted(theirs)),
        # of positions the run has 16 of their 24
        "differences": {name: float((ours[name] - theirs[name][: len(ours[name])]).abs().max()) for name in theirs},
        "exported": exported_alike(done.folder, folder, place / "export", family),
        "known": getattr(plan_import(place / "export", config, plan.data).known, "parents", None),
        "in bf16": begins_alike(load_run(path, ["--training.precision=bf16"]), plan, start),
        "moved": {name: float((theirs[name] - before[name]).abs().max()) for name in theirs},
    }


def begins_alike(config: RunConfig, plan: ImportPlan, start: StartingPoint) -> dict[str, int]:
    """How many weights and masters of a bf16 run begin as the folder's numbers: those rounded, these as they are."""
    import torch

    from megatron_patches.checkpoint.initial_weights import load_initial_weights
    from megatron_patches.parallel.process_groups import stop_process_groups
    from tests.small_engine import SmallEngine, groups_of

    stored = {pair.ours: pair.join([plan.tensors[name].read() for name in pair.theirs]) for pair in plan.pairs}
    groups = groups_of(config)
    try:
        pieces = SmallEngine(config, groups).engine.state()
        load_initial_weights(start.weights, config, pieces, groups)
        equal = {"weight": 0, "master": 0}
        for piece in pieces:
            if piece.kind in equal:
                wanted = stored[piece.name].reshape(-1)[: piece.tensor.numel()].to(piece.tensor.dtype)
                equal[piece.kind] += torch.equal(piece.tensor.detach().reshape(-1), wanted)
    finally:
        stop_process_groups()
    return equal | {"of": len(stored)}


def exported_alike(artefact: Path, folder: Path, target: Path, family: str) -> bool:
    """Whether an export of an import has the folder's tensors, bit for bit."""
    import torch

    from megatron_patches.transformers_exchange.card.folder import open_folder
    from megatron_patches.transformers_exchange.choice import format_of
    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers

    _, format = format_of(family)
    export_transformers(ExportRequest(artefact, target, format=family))
    there, back = (open_folder(each).by(format.current_name).tensors for each in (folder, target))
    bits = {"F32": torch.int32, "BF16": torch.int16}
    return there.keys() == back.keys() and all(
        torch.equal(*(each[name].read().view(bits[each[name].dtype]) for each in (there, back))) for name in there
    )


def plain_step(
    folder: Path, family: str, batch: list[Any], adamw: bool
) -> tuple[dict[str, Tensor], float, dict[str, Tensor]]:
    """One step as anyone would write it with transformers: weights, loss, and the weights before."""
    import torch

    model = automatic_model(family).from_pretrained(folder, dtype=torch.float32).eval()
    named = dict(model.named_parameters())
    before = {name: each.detach().clone() for name, each in named.items()}
    decayed = [each for each in named.values() if each.ndim > 1]
    rest = [each for each in named.values() if each.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = (
        torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-3)
        if adamw
        else torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    )
    total = torch.zeros(())
    for each in batch:
        logits = model(input_ids=each.inputs["tokens"]).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), each.labels.flatten(), reduction="none")
        total = total + (losses * each.weights.flatten()).sum()
    total.backward()
    optimizer.step()
    return {name: each.detach() for name, each in named.items()}, total.item(), before


@pytest.fixture(scope="module")
def results(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_on_ranks(import_and_train, 1, tmp_path_factory.mktemp("imports"), small_data)[0]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_import_is_the_same_model_and_trains_alike(results: dict[str, Any], case: str) -> None:
    found, (family, dtype, _, _) = results[case], CASES[case]
    card = found["card"]
    assert card.model_type == family
    assert card.tensors.dtype == {"float32": "F32", "bfloat16": "BF16"}[dtype]
    assert card.source == found["id"] == found["begins"][0]
    assert "@0/weights" in found["begins"][1]
    assert found["exported"]
    assert found["known"] == [found["id"]]  # an export that comes back is known, and so is what it was made of
    assert found["in bf16"]["weight"] == found["in bf16"]["master"] == found["in bf16"]["of"] > 10
    assert found["names"][0] == found["names"][1]
    ours, theirs = found["loss"]
    assert ours == pytest.approx(theirs, rel=2e-6)
    assert min(found["moved"].values()) > 1e-4
    assert max(found["differences"].values()) < 2e-6, found["differences"]
