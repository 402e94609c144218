"""BLOOM's format: layer files, tied modules, optimizer shards of 11 data-parallel ranks; bit for bit, or refused."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.adoption import ImportRequest, import_checkpoint
from megatron_patches.run.config import RunConfig
from tests.megatron_deepspeed import UPDATES, enums, save_pipeline, share_out, whole
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides
from tests.whole_state import whole_tensors

BLOOM = overrides(
    model__position_embedding="alibi", model__embedding_norm="true", training__precision="bf16", model__layers=3
)
NAMES = {
    "attention_norm": ("input_layernorm", (32,)),
    "attention.query_key_value.linear": ("self_attention.query_key_value", (48, 32)),
    "attention.output.linear": ("self_attention.dense", (32, 16)),
    "mlp_norm": ("post_attention_layernorm", (32,)),
    "mlp.up.linear": ("mlp.dense_h_to_4h", (32, 32)),
    "mlp.down.linear": ("mlp.dense_4h_to_h", (32, 32)),
}


@pytest.fixture(scope="module", autouse=True)
def megatron_enums() -> Iterator[None]:
    """For this test's own reading of what it edits; ours does without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "megatron.enums", enums())
        yield


@pytest.fixture(scope="module")
def config(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return small_data.run(tmp_path_factory.mktemp("run"), BLOOM)


@pytest.fixture(scope="module")
def real(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved by DeepSpeed at TP2 PP2 DP1."""
    folder = tmp_path_factory.mktemp("megatron")
    run_on_ranks(save_pipeline, 4, config.model, str(folder))
    return folder / "global_step3"


@pytest.fixture(scope="module")
def shared(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as 11 data-parallel ranks save it."""
    folder = tmp_path_factory.mktemp("shared") / "global_step3"
    share_out(real, folder, 11)
    return folder


@pytest.fixture
def copy(shared: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(shared, tmp_path / "copy"))


def theirs(name: str) -> tuple[str, tuple[int, ...]]:
    """Their name of one of ours, and the shape of a tensor-parallel rank's part."""
    fixed = {
        "embedding.tokens.table.weight": ("tied_modules.embed.word_embeddings.weight", (192, 32)),
        "embedding_norm.weight": ("tied_modules.embed.word_embeddings.norm.weight", (32,)),
        "embedding_norm.bias": ("tied_modules.embed.word_embeddings.norm.bias", (32,)),
        "final_norm.weight": ("7.weight", (32,)),
        "final_norm.bias": ("7.bias", (32,)),
    }
    if name in fixed:
        return fixed[name]
    _, number, rest = name.split(".", 2)
    leaf, end = rest.rsplit(".", 1)
    own, shape = NAMES[leaf]
    return f"{int(number) + 3}.{own}.{end}", shape[:1] if end == "bias" else shape


def contents(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    return {place: values.reshape(-1) for place, values in whole_tensors(folder).items()}


def adopt(folder: Path, config: RunConfig, target: Path, **options: Any) -> Path:
    request = replace(ImportRequest(folder, config, "megatron-deepspeed"), **options)
    return import_checkpoint(request, RunFolder(target)).folder


@pytest.mark.parametrize("ranks", [1, 11])
def test_everything_arrives_bit_for_bit(
    ranks: int, real: Path, shared: Path, config: RunConfig, tmp_path: Path
) -> None:
    request = ImportRequest(real if ranks == 1 else shared, config, "megatron-deepspeed")
    done = import_checkpoint(request, RunFolder(tmp_path))
    assert (done.optimizer_steps, done.progress.step, done.progress.samples) == (UPDATES, 3, 24)
    found = contents(done.folder)
    assert len(found) == 4 * (5 + 3 * 12)
    for (name, kind), tensor in found.items():
        expected = whole(theirs(name)[0], "master" if kind == "weight" else kind, theirs(name)[1])
        expected = expected.bfloat16() if kind == "weight" else expected
        assert torch.equal(tensor, expected.flatten()), (name, kind)


def test_weights_alone_need_no_other_files(real: Path, config: RunConfig, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(real, tmp_path / "copy", ignore=shutil.ignore_patterns("*optim_states.pt")))
    with pytest.raises(TrainyardError, match="has no state of an optimizer; import it with --weights-only"):
        adopt(copy, config, tmp_path / "run")
    found = contents(adopt(copy, config, tmp_path / "run", weights_only=True))
    assert {kind for _, kind in found} == {"weight"}
    name, shape = theirs("layers.2.mlp.down.linear.weight")
    expected = whole(name, "master", shape).bfloat16().flatten()
    assert torch.equal(found["layers.2.mlp.down.linear.weight", "weight"], expected)


def test_weights_alone_lie_beside_checkpoints(real: Path, config: RunConfig, tmp_path: Path) -> None:
    adopt(real, config, tmp_path)
    assert adopt(real, config, tmp_path, weights_only=True, at_step=2).name == "weights-0000000002"


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Read a file, edit what is in it or replace it, write it again."""
    state = torch.load(path, weights_only=False)
    edited = edit(state)
    torch.save(edited if isinstance(edited, dict) else state, path)


def test_a_missing_rank_is_named(copy: Path, config: RunConfig, tmp_path: Path) -> None:
    (copy / "bf16_zero_pp_rank_10_mp_rank_02_optim_states.pt").unlink()
    with pytest.raises(TrainyardError, match=r"lacks bf16_zero_pp_rank_10_mp_rank_02_optim_states.pt; copy"):
        adopt(copy, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rank_too_many_is_named(copy: Path, config: RunConfig, tmp_path: Path) -> None:
    first = copy / "bf16_zero_pp_rank_10_mp_rank_02_optim_states.pt"
    shutil.copy(first, copy / "bf16_zero_pp_rank_11_mp_rank_02_optim_states.pt")
    with pytest.raises(TrainyardError, match=r"has bf16_zero_pp_rank_11_mp_rank_02_optim_states.pt of ranks that"):
        adopt(copy, config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mp_rank_01_model_states.pt", "lacks mp_rank_01_model_states.pt"),
        ("mp_rank_03_model_states.pt", "layers of 2 tensor-parallel ranks and states of 3"),
        ("layer_04-model_01-model_states.pt", "lacks layer_04-model_01-model_states.pt"),
    ],
)
def test_missing_states_are_named(name: str, message: str, copy: Path, config: RunConfig, tmp_path: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(TrainyardError, match=message):
        adopt(copy, config, tmp_path / "run")


def test_ranks_in_the_wrong_order_are_noticed(copy: Path, config: RunConfig, tmp_path: Path) -> None:
    """Ranks sorted as texts come as 0, 1, 10, 2: what such a program would have written."""
    paths = [copy / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(11)]
    for number, path in enumerate(sorted(paths, key=str)):
        path.rename(copy / f"{number}")
    for number, path in enumerate(paths):
        (copy / f"{number}").rename(path)
    with pytest.raises(
        TrainyardError, match=r"do not follow those of the rank before|do not have as many elements|dif"
    ):
        adopt(copy, config, tmp_path / "run")


def test_copies_that_drifted_apart_are_averaged_only_if_asked(copy: Path, config: RunConfig, tmp_path: Path) -> None:
    change(copy / "layer_05-model_01-model_states.pt", lambda state: state["input_layernorm.weight"].add_(1))
    with pytest.raises(TrainyardError, match=r"weight of 5.input_layernorm.weight is not the same .*ranks 0 and 1"):
        adopt(copy, config, tmp_path / "run", weights_only=True)
    found = contents(adopt(copy, config, tmp_path / "run", weights_only=True, average_replicas=True))
    one = whole("5.input_layernorm.weight", "master", (32,)).bfloat16()
    mean = torch.stack([one.float(), (one + 1).float()]).mean(0).bfloat16()
    assert torch.equal(found["layers.2.attention_norm.weight", "weight"], mean)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: setattr(state["args"], "num_attention_heads", 8), "their num_attention_heads is 8, model.att"),
        (lambda state: setattr(state["args"], "consumed_train_samples", 48), "had consumed 48 samples, .* 24;"),
        (lambda state: setattr(state["args"], "consumed_train_tokens", 99), "had consumed 99 tokens, .* 384;"),
        (lambda state: state | {"iteration": 9}, "step 9 is beyond the end .* 8 steps"),
        (lambda state: state | {"checkpoint_version": 1.0}, "checkpoint_version 1.0 orders the attention matrix"),
        (
            lambda state: state | {"ds_config": {"zero_optimization": {"round_robin_gradients": True}}},
            "round_robin_gradients",
        ),
        (lambda state: {"hello": 1}, "is no state that DeepSpeed saved"),
    ],
)
def test_what_their_own_state_says_is_heeded(
    edit: Callable[[Any], Any], message: str, copy: Path, config: RunConfig, tmp_path: Path
) -> None:
    change(copy / "mp_rank_00_model_states.pt", edit)
    with pytest.raises(TrainyardError, match=message):
        adopt(copy, config, tmp_path / "run")


def test_updates_that_files_count_differently(copy: Path, config: RunConfig, tmp_path: Path) -> None:
    def another(state: dict[str, Any]) -> None:
        state["optimizer_state_dict"]["base_optimizer_state"]["state"][0]["step"].fill_(UPDATES + 1)

    change(copy / "bf16_zero_pp_rank_4_mp_rank_03_optim_states.pt", another)
    with pytest.raises(TrainyardError, match="the files count different numbers of updates"):
        adopt(copy, config, tmp_path / "run")


@pytest.mark.parametrize("lost", ["single_partition_of_fp32_groups", "base_optimizer_state"])
def test_another_structure_is_no_traceback(lost: str, copy: Path, config: RunConfig, tmp_path: Path) -> None:
    def lose(state: dict[str, Any]) -> None:
        del state["optimizer_state_dict"][lost]

    change(copy / "bf16_zero_pp_rank_4_mp_rank_03_optim_states.pt", lose)
    with pytest.raises(TrainyardError, match=f"is not as DeepSpeed writes it .KeyError: '{lost}'"):
        adopt(copy, config, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (overrides(model__layers=4), r"ours that they do not have \(\d+\):\n  layers.3.attention_norm.weight \(32,\)"),
        (
            overrides(model__layers=2),
            r"(?s)theirs that no .*5.input_layernorm.weight 2 x \(32,\) \(which would be layers.2",
        ),
        (
            overrides(model__embedding_norm="false"),
            r"(?s)word_embeddings.norm.weight .*which would be embedding_norm.weight",
        ),
        (
            overrides(model__position_embedding="learned"),
            r"ours that they do not have \(1\):\n  positions.weight \(16, 32\)",
        ),
        (
            overrides(model__vocab_multiple=100),
            "Their table has 384 rows; .*multiple of model.vocab_multiple 100 has 400",
        ),
        (
            overrides(model__attention_heads=1, model__position_embedding="none"),
            "cut for 2 tensor-parallel ranks, which",
        ),
    ],
)
def test_another_model_is_told_with_names_and_numbers(
    arguments: list[str], message: str, shared: Path, small_data: SmallData, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(shared, tmp_path / "copy"))
    for path in copy.glob("mp_rank_*"):
        change(path, lambda state: vars(state["args"]).clear())
    other = small_data.run(tmp_path, [*BLOOM, *arguments])
    with pytest.raises(TrainyardError, match=message):
        adopt(copy, other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_here_and_trained_there(shared: Path, small_data: SmallData, tmp_path: Path) -> None:
    frozen = small_data.run(tmp_path, [*BLOOM, "--training.frozen", '["final_norm.*"]'])
    with pytest.raises(TrainyardError, match=r"it has exp_avg of final_norm.bias, .* does not train or keep"):
        adopt(shared, frozen, tmp_path / "run")
    found = contents(adopt(shared, frozen, tmp_path / "run", weights_only=True))
    assert {kind for name, kind in found if name == "final_norm.bias"} == {"weight"}


def test_a_run_with_checkpoints_is_left_alone(real: Path, config: RunConfig, tmp_path: Path) -> None:
    adopt(real, config, tmp_path)
    with pytest.raises(TrainyardError, match="has checkpoints already, the newest step-0000000003"):
        adopt(real, config, tmp_path)


def test_another_step_may_be_named(real: Path, config: RunConfig, tmp_path: Path) -> None:
    assert adopt(real, config, tmp_path, at_step=5).name == "step-0000000005"
