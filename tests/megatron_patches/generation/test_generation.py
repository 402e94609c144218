"""Generation: any layout's checkpoint on one process, the same weights, the choices asked for."""

import shutil
from pathlib import Path
from typing import Any, Never

import pytest
import torch

from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.errors import TrainyardError
from megatron_patches.run.run_directory import start_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

IDS = [5, 300, 17, 90, 41, 5]


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a run of 8 steps under TP2 x PP2, with checkpoints of steps 3, 6 and 8."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(small_data.run(folder, overrides(parallel__tensor=2, parallel__pipeline=2)))
    run_on_ranks(train_launch, 4, str(launch.directory))
    return launch.run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy that a test may damage."""
    shutil.copytree(trained, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def generate(
    folder: Path, step: int | None, prompt: str, temperature: float = 1.0, seed: int = 0
) -> tuple[str, list[list[float]], int]:
    """A continuation of 24 tokens, logits after IDS, and the step that was read, on one process."""
    from megatron_patches.generation.continuation import Wanted, continue_texts
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.sampling import Sampling

    model = load_model(checkpoints_with_weights(RunFolder(folder), step), passed_over=print)
    ((_, written),) = continue_texts(model, [prompt], Wanted(24, Sampling(temperature), seed))
    text = written.prompt + written.text
    return text, model.logits(IDS).tolist(), int(model.checkpoint.name.removeprefix("step-"))


def logits_of_tensor_parallel_engine(launch_directory: str) -> list[list[float]]:
    """This rank's part of the vocabulary, from the engine that resumes the run."""
    import os

    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.run.layout import plan_layout
    from megatron_patches.run.reading import load_resolved
    from megatron_patches.run.run_directory import Launch
    from megatron_patches.training.train import build_trainer, resume

    launch = Launch(Path(launch_directory))
    config = load_resolved(launch.config)
    layout = plan_layout(config, int(os.environ["WORLD_SIZE"]))
    trainer, checkpointing = build_trainer(config, launch, start_process_groups(layout, PRECISIONS["fp32"]))
    resume(trainer, checkpointing)
    assert trainer.progress.step == 8
    engine: Any = trainer.engine
    with torch.no_grad():
        return engine.deepspeed.module({"tokens": torch.tensor([IDS])})[:, 0].tolist()


def test_logits_are_those_of_the_layout_that_trained(
    trained: Path, small_data: SmallData, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    launch = start_launch(small_data.run(tmp_path, overrides(parallel__tensor=2)))
    shutil.copytree(run.checkpoints, launch.run.checkpoints)
    halves = run_on_ranks(logits_of_tensor_parallel_engine, 2, str(launch.directory))
    expected = torch.cat([torch.tensor(half) for half in halves], dim=-1)
    _, logits, step = run_on_ranks(generate, 1, trained, None, "abc")[0]
    _, earlier, _ = run_on_ranks(generate, 1, trained, 3, "abc")[0]
    assert step == 8
    assert expected.shape == (len(IDS), 384)
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-5, atol=1e-5)
    assert (torch.tensor(earlier) - expected).abs().max() > 1e-2, "the step's own weights were not read"


def test_a_continuation_is_repeatable_and_begins_with_its_prompt(trained: Path) -> None:
    """24 further tokens are more than the 16 the model can see at once."""

    def texts(*choices: Any) -> list[str]:
        return [run_on_ranks(generate, 1, trained, None, "abc ", *choices)[0][0] for _ in range(2)]

    greedy, drawn = texts(0.0), texts(1.5, 4)
    assert greedy[0] == greedy[1] != drawn[0] == drawn[1]
    assert greedy[0].startswith("abc ")
    assert len(greedy[0]) > len("abc ")
    assert texts(1.5, 5)[0] != drawn[0]


def test_a_damaged_checkpoint_is_passed_over_and_named(run: RunFolder) -> None:
    newest, older, _ = list_checkpoints(run.checkpoints)
    damaged = newest / "weights-00001.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    folder, problems = run_on_ranks(read_weights, 1, run.path, None)[0]
    assert folder == older
    assert [str(damaged) in problem for problem in problems] == [True]
    with pytest.raises(RankFailed, match=r"no whole checkpoint .*weights-00001"):
        run_on_ranks(read_weights, 1, run.path, 8)


def read_on_two(folder: Path) -> tuple[str, int, list[str]] | None:
    """The checkpoint that two ranks read, how many were passed over, and why other sizes and lengths are refused."""
    import os

    from megatron_patches.errors import Refused
    from megatron_patches.generation import loaded_model
    from tests.megatron_patches.generation.small_models import start

    folders = checkpoints_with_weights(RunFolder(folder))
    groups = start(2)
    if os.environ["RANK"] == "1":
        try:
            loaded_model.obey(groups)
        except RuntimeError:  # the first rank has ended
            return None
    problems: list[str] = []
    model = loaded_model.load_model(folders, problems.append, lambda: groups, 2)
    assert model.logits(IDS).isfinite().all()

    def nothing_is_started() -> Never:
        raise AssertionError

    refused = []
    for sizes, length in (((3, 1), None), ((1, 5), None), ((3, 5), None), ((1, 1), 17), ((1, 1), 0)):
        with pytest.raises(TrainyardError) as error:
            loaded_model.load_model(folders, problems.append, nothing_is_started, *sizes, length=length)
        refused.append(str(error.value))
    own = loaded_model.own_tokenizer

    def larger(*arguments: Any) -> Any:
        tokenizer = own(*arguments)
        tokenizer.vocab_size = 9999
        return tokenizer

    loaded_model.own_tokenizer = larger
    with pytest.raises(Refused, match="has 9,999 ids, and the model"):
        loaded_model.load_model(folders, problems.append, nothing_is_started)
    return model.checkpoint.name, len(problems), refused


def test_ranks_pass_over_a_damaged_checkpoint_together(run: RunFolder) -> None:
    newest, older, _ = list_checkpoints(run.checkpoints)
    damaged = newest / "weights-00001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    first, _ = run_on_ranks(read_on_two, 2, run.path)
    assert first[:2] == (older.name, 1)
    tensor, stages, both, longer, none = first[2]
    assert "not divisible by --tensor-parallel 3" in tensor
    assert stages == "--pipeline-parallel 5 stages are more than the 4 blocks (layers); use at most 4"
    assert both.splitlines() == [*tensor.splitlines(), stages]
    assert longer.startswith("length 17: tr900a-28K-small has learned positions.weight for 16 places alone; ask for at")
    assert none.startswith("length 0: ")


def logits_on(folder: Path, stages: int, length: int | None) -> list[list[float]] | None:
    """After IDS, of a model in so many stages at this length."""
    import os

    from megatron_patches.generation.loaded_model import load_model, obey
    from tests.megatron_patches.generation.small_models import start

    groups = start(int(os.environ["WORLD_SIZE"]), stages)
    try:
        if groups.rank:
            obey(groups)
    except RuntimeError:  # the first rank has ended
        return None
    tensor = groups.layout.tensor
    model = load_model(
        checkpoints_with_weights(RunFolder(folder)), print, lambda: groups, tensor, stages, length=length
    )
    return model.logits(IDS).tolist()


def test_fewer_learned_positions_are_the_first_ones(trained: Path) -> None:
    """On one process, and of two tensor-parallel ranks in two stages each."""
    expected = torch.tensor(run_on_ranks(logits_on, 1, trained, 1, None)[0])
    for ranks, stages in ((1, 1), (4, 2)):
        found = torch.tensor(run_on_ranks(logits_on, ranks, trained, stages, len(IDS))[0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_weights_are_read_without_the_rest(run: RunFolder) -> None:
    """Of a checkpoint the optimizer's files are six times those of the weights."""
    newest = list_checkpoints(run.checkpoints)[0]
    for path in newest.glob("optimizer-*"):
        path.write_bytes(bytes(path.stat().st_size))
    assert run_on_ranks(read_weights, 1, run.path, None)[0] == (newest, [])


def read_weights(folder: Path, step: int | None) -> tuple[Path, list[str]]:
    """The checkpoint that was read, and what was wrong with those before it."""
    from megatron_patches.generation.loaded_model import load_model

    problems: list[str] = []
    model = load_model(checkpoints_with_weights(RunFolder(folder), step), problems.append)
    return model.checkpoint, problems


def test_what_is_not_there_is_said(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match="no checkpoint of step 7; it has those of 3, 6, 8"):
        checkpoints_with_weights(run, 7)
    with pytest.raises(TrainyardError, match="has no checkpoints"):
        checkpoints_with_weights(RunFolder(tmp_path / "nothing"))


def first_logits_after_another_end(folder: Path, reads_prefixes: bool, prefix: int) -> bool:
    """Whether the first id's logits hear of a change of the last id, of the model as it is or with prefixes."""
    from megatron_patches.generation import loaded_model, loading
    from megatron_patches.objectives.objective_config import PrefixLMConfig

    if reads_prefixes:
        as_saved, objective = loading.load_resolved, PrefixLMConfig(name="prefix_lm")
        loading.load_resolved = lambda path: as_saved(path).model_copy(update={"objective": objective})
    model = loaded_model.load_model(checkpoints_with_weights(RunFolder(folder)), passed_over=print)
    return not torch.equal(model.logits(IDS, prefix)[0], model.logits([*IDS[:-1], 7], prefix)[0])


@pytest.mark.parametrize(
    ("reads_prefixes", "prefix", "hears"), [(False, 6, False), (True, 6, True), (True, 3, False), (True, 0, False)]
)
def test_a_prompt_is_a_prefix_to_a_model_that_reads_one(
    trained: Path, reads_prefixes: bool, prefix: int, hears: bool
) -> None:
    assert run_on_ranks(first_logits_after_another_end, 1, trained, reads_prefixes, prefix) == [hears]
