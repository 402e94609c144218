"""Rules of names, orders of rows, boxes of other layouts, and moments: what an import goes by."""

from pathlib import Path

import pytest
import torch

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.foreign import ForeignTensor, whole_shard
from megatron_patches.exchange.matching import match_tensors
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.megatron_names import bigscience_pipeline, megatron_map
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.parameters.name_map import NameMap, NameRule, OwnNames, read_name_map
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.config import RunConfig
from megatron_patches.run.moment_table import moment_shapes
from tests.megatron_patches.models.test_parameter_table import combinations
from tests.ranks import run_on_ranks
from tests.small_engine import SmallEngine, groups_of
from tests.small_model import causal_lengths
from tests.small_training import SmallData, overrides


@pytest.mark.parametrize(
    ("theirs", "ours", "name", "expected"),
    [
        ("h.{n}.ln_1.*", "layers.{n}.attention_norm.*", "h.12.ln_1.bias", "layers.12.attention_norm.bias"),
        ("{n+3}.mlp.*", "layers.{n}.mlp.*", "3.mlp.weight", "layers.0.mlp.weight"),
        ("{n+3}.mlp.*", "layers.{n}.mlp.*", "2.mlp.weight", None),
        ("{n}.a", "x.{n}", "07.a", None),
        ("h.{n}.ln_1.*", "layers.{n}.attention_norm.*", "h.1.ln_1.a.b", None),
        ("h.{n}", "x.{n}", "h_1", None),
        ("*.{k}.*", "{k}.*.*", "a.5.b", "5.a.b"),
    ],
)
def test_rules_read_both_ways(theirs: str, ours: str, name: str, expected: str | None) -> None:
    rule = NameRule(theirs, ours)
    assert rule.to_ours(name) == expected
    if expected is not None:
        assert rule.to_theirs(expected) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: {}", "is no map of names .*names"),
        (
            "names: {a: b}\nstacked: true",
            "its keys are names, ignore, stacked_query_key_value, value_before_gate, groups",
        ),
        ('names: {"a.{n}": b}', "has other placeholders on one side"),
        ('names: {"a.*": "b.{n}"}', "has other placeholders on one side"),
    ],
)
def test_a_yaml_that_is_no_map(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(TrainyardError, match=message):
        read_name_map(tmp_path / "names.yaml")


MODEL = GPTConfig(layers=2, hidden_size=16, attention_heads=4, ffn_size=24, vocab_size=30)


@pytest.mark.parametrize("stack", ["transformer", "encoder"])
def test_megatrons_modules(stack: str) -> None:
    """Names of a model without a pipeline, as NVIDIA's and both forks have had them."""
    prefix = f"language_model.{stack}"
    names = {
        "language_model.embedding.word_embeddings.weight": "embedding.tokens.table.weight",
        "language_model.embedding.position_embeddings.weight": "positions.weight",
        f"{prefix}.layers.1.input_layernorm.bias": "layers.1.attention_norm.bias",
        f"{prefix}.layers.1.attention.query_key_value.weight": "layers.1.attention.query_key_value.linear.weight",
        f"{prefix}.layers.0.self_attention.dense.bias": "layers.0.attention.output.linear.bias",
        f"{prefix}.layers.0.mlp.dense_4h_to_h.weight": "layers.0.mlp.down.linear.weight",
        f"{prefix}.final_layernorm.weight": "final_norm.weight",
        "language_model.output_layer.weight": "head.logits.linear.weight",
    }
    found = megatron_map(names, MODEL, {})
    assert {name: found.to_ours(name) for name in names} == names
    assert found.ignores(f"{prefix}.layers.0.self_attention.rotary_emb.inv_freq")


@pytest.mark.parametrize("first", [2, 3])
def test_the_forks_count_layers_differently(first: int) -> None:
    norm = first + MODEL.layers + (first == 3)
    names = ["1.word_embeddings.weight", f"{first}.self_attention.dense.weight", f"{norm}.bias"]
    found = megatron_map([*names, f"{first + 1}.input_layernorm.weight"], MODEL, {})
    assert [found.to_ours(name) for name in names] == [
        "embedding.tokens.table.weight", "layers.0.attention.output.linear.weight", "final_norm.bias",
    ]  # fmt: skip


def test_bigscience_names_are_complete() -> None:
    names = bigscience_pipeline(MODEL)
    rows = [row.name for row in parameter_table(MODEL, causal_lengths(8))]
    theirs = [names.to_theirs(row) for row in rows]
    assert len(set(theirs)) == len(rows) and None not in theirs
    found = megatron_map([name for name in theirs if name], MODEL, {})
    assert [found.to_ours(name) for name in theirs if name] == rows


GATED = MODEL.model_copy(update={"activation": "swiglu"})


@pytest.mark.parametrize(
    ("settings", "expected"), [({"glu_activation": "swiglu"}, True), ({"swiglu": True}, False), ({}, None)]
)
def test_which_half_is_activated_is_not_guessed(settings: dict[str, object], expected: bool | None) -> None:
    assert megatron_map([], GATED, settings).value_before_gate is expected
    assert megatron_map([], MODEL, {}).value_before_gate is False


def parts_of(whole: torch.Tensor, names: NameMap, name: str, ranks: int) -> list[torch.Tensor]:
    """What each of their tensor-parallel ranks holds, in their order of rows."""
    if ".query_key_value." in name:  # (head; query, key, value; feature)
        parts = list(whole.chunk(ranks, dim=0))
        return [part.transpose(0, 1) if names.stacked_query_key_value else part for part in parts]
    if ".up." in name:  # (gate, value; feature)
        return [part.flip(0) if names.value_before_gate else part for part in whole.chunk(ranks, dim=1)]
    if name.endswith((".output.linear.weight", ".down.linear.weight")):
        return list(whole.chunk(ranks, dim=1))
    if name.endswith("table.weight"):
        return list(whole.chunk(ranks, dim=0))
    return [whole] * ranks


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("value_first", [False, True])
def test_rows_in_another_order(
    ranks: int, stacked: bool, value_first: bool, small_data: SmallData, tmp_path: Path
) -> None:
    """A plain concatenation of gated halves, or of queries, keys and values, would be another model."""
    config = small_data.run(tmp_path, overrides(model__activation="swiglu", model__layers=1))
    names = OwnNames("test", (), stacked_query_key_value=stacked, value_before_gate=value_first)
    truth, tensors = {}, []
    for row in config.parameters:
        truth[row.name] = torch.randn(row.shape)
        parts = parts_of(truth[row.name], names, row.name, ranks)
        shape = row.own_shape(row.slice_of(0, ranks))
        shards = tuple(whole_shard(part.reshape(shape)) for part in parts)
        tensors.append(ForeignTensor(row.name, "weight", shards))
    for (name, _), tensor in match_tensors(tensors, config, names, average_replicas=False).items():
        assert torch.equal(tensor.read(0, tensor.elements).view(tensor.shape), truth[name]), name


def test_an_unknown_order_is_refused_and_not_guessed(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, overrides(model__activation="swiglu", model__layers=1))
    rows = config.parameters
    shapes = [row.own_shape(TensorSlice.whole(row.shape)) for row in rows]
    tensors = [
        ForeignTensor(row.name, "weight", (whole_shard(torch.zeros(shape)),))
        for row, shape in zip(rows, shapes, strict=True)
    ]
    with pytest.raises(TrainyardError, match="which half of their gated MLP is activated is not known"):
        match_tensors(tensors, config, OwnNames("test", (), value_before_gate=None), average_replicas=False)


def test_two_names_of_one_parameter_must_agree(small_data: SmallData, tmp_path: Path) -> None:
    """A head that is saved beside the table it is tied to."""
    config = small_data.run(tmp_path, overrides(model__layers=1))
    rows = config.parameters
    tensors = [
        ForeignTensor(row.name, "weight", (whole_shard(torch.ones(row.own_shape(whole))),))
        for row in rows
        if (whole := TensorSlice.whole(row.shape))
    ]
    rules = (NameRule("lm_head.weight", "embedding.tokens.table.weight"), *(NameRule(r.name, r.name) for r in rows))
    for value, fits in ((1.0, True), (2.0, False)):
        head = ForeignTensor("lm_head.weight", "weight", (whole_shard(torch.full((384, 32), value)),))
        if fits:
            assert len(match_tensors([*tensors, head], config, NameMap("test", rules), False)) == len(rows)
            continue
        with pytest.raises(TrainyardError, match=r"embedding.tokens.table.weight and lm_head.weight are both"):
            match_tensors([*tensors, head], config, NameMap("test", rules), False)


Boxes = list[dict[str, tuple[TensorSlice, tuple[int, ...]]]]


def built_boxes(models: list[GPTConfig], ranks: int) -> Boxes:
    """Of each model's parameters the box on this rank and the shape of its own tensor."""
    from megatron_patches.models.build import canonical_parameters
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.info import info_of
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(ranks, 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    plain = (plain_model(model, 8, groups, randomness) for model in models)
    return [
        {name: (info_of(each).slice, tuple(each.shape)) for name, each in canonical_parameters(built).items()}
        for built in plain
    ]


@pytest.mark.parametrize("ranks", [1, 2])
def test_boxes_are_those_of_the_layers(ranks: int) -> None:
    models = combinations()[:: 12 * ranks - 1]
    for rank, boxes in enumerate(run_on_ranks(built_boxes, ranks, models, ranks)):
        for model, built in zip(models, boxes, strict=True):
            for row in parameter_table(model, causal_lengths(8)):
                box = row.slice_of(rank, ranks)
                assert (box, row.own_shape(box)) == built[row.name], (row.name, model)


OPTIMIZERS = {
    "adamw": ["--optimizer.name=adamw"],
    "sgd": ["--optimizer={name: sgd, learning_rate: 0.1, momentum: 0.9}"],
    "plain sgd": ["--optimizer={name: sgd, learning_rate: 0.1}"],
    "lion": ["--optimizer={name: lion, learning_rate: 0.1}"],
    "adafactor": ["--optimizer={name: adafactor, learning_rate: 0.1}"],
    "muon": ["--optimizer={name: muon, learning_rate: 0.1, rest: {learning_rate: 0.1}}"],
}


def saved_moments(configs: list[RunConfig]) -> list[dict[str, dict[str, tuple[int, ...]]]]:
    """By parameter, kinds and whole shapes of the moments in each engine's state."""
    groups = groups_of(configs[0])
    found: list[dict[str, dict[str, tuple[int, ...]]]] = []
    for config in configs:
        small = SmallEngine(config, groups)
        small.batches.close()
        kinds: dict[str, dict[str, tuple[int, ...]]] = {}
        for piece in small.engine.state():
            if piece.kind not in ("weight", "master"):
                kinds.setdefault(piece.name, {})[piece.kind] = piece.slice.global_shape
        found.append(kinds)
    return found


def test_moments_are_those_of_the_engines(small_data: SmallData, tmp_path: Path) -> None:
    gated = overrides(model__activation="swiglu", model__key_value_heads=2)
    configs = [
        small_data.run(tmp_path / f"{number}", [*optimizer, *arguments])
        for number, (optimizer, arguments) in enumerate((o, w) for o in OPTIMIZERS.values() for w in ([], gated))
    ]
    for config, kinds in zip(configs, run_on_ranks(saved_moments, 1, configs)[0], strict=True):
        for row in config.parameters:
            assert moment_shapes(config, row) == kinds.get(row.name, {}), (config.optimizer.name, row.name)


@pytest.mark.parametrize(("rows", "removed", "fits"), [(384, True, True), (384, False, False), (383, True, False)])
def test_a_vocabulary_without_its_padding(
    rows: int, removed: bool, fits: bool, small_data: SmallData, tmp_path: Path
) -> None:
    """Where DeepSpeed's converter took the rows off that only pad, zeros come back, as in its own loading."""
    config = small_data.run(tmp_path, overrides(model__layers=1, model__vocab_multiple=100))
    tensors = []
    for row in config.parameters:
        shape = row.own_shape(TensorSlice.whole(row.shape))
        is_table = row.part == "token_embedding"
        values = torch.randn((rows, 32) if is_table else shape).abs() + 1  # no zero by chance
        shards = (whole_shard(values),)
        tensors.append(ForeignTensor(row.name, "weight", shards, padding_removed=removed and is_table))
    if not fits:
        with pytest.raises(TrainyardError, match=f"Their table has {rows} rows; .*vocab_multiple 100 has 400"):
            match_tensors(tensors, config, OwnNames("test", ()), average_replicas=False)
        return
    matched = match_tensors(tensors, config, OwnNames("test", ()), average_replicas=False)
    table = matched["embedding.tokens.table.weight", "weight"]
    found = table.read(0, table.elements).view(400, 32)
    assert found[:384].all() and not found[384:].any()


def test_each_parameter_keeps_its_own_precision(small_data: SmallData, tmp_path: Path) -> None:
    """Norms in fp32 among weights in bf16: nothing is rounded on the way."""
    config = small_data.run(tmp_path, overrides(model__layers=1))
    truth, tensors = {}, []
    for row in config.parameters:
        dtype = torch.float32 if row.part == "norms" else torch.bfloat16
        truth[row.name] = torch.randn(row.own_shape(TensorSlice.whole(row.shape))).to(dtype)
        tensors.append(ForeignTensor(row.name, "weight", (whole_shard(truth[row.name]),)))
    for (name, _), tensor in match_tensors(tensors, config, OwnNames("test", ()), average_replicas=False).items():
        assert tensor.dtype == truth[name].dtype
        assert torch.equal(tensor.read(0, tensor.elements), truth[name].flatten())
