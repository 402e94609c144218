"""Records of validations that lack a group or a loss, as another version or a person writes them, in pictures."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.callbacks.wandb_log import earlier_steps
from megatron_patches.events.tensorboard_files import ScalarFile, rebuild_tensorboard
from megatron_patches.events.writing import EventWriter


def test_pictures_are_made_again_of_what_there_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    writer = EventWriter(run.events, "0001", "trainer")
    writer.write("start", step=0)
    for step in (1, 2):
        writer.write("step", step=step, loss=3.0)
    writer.write("validation", step=1, source="code")
    writer.write("validation", step=1, loss=2.5)
    writer.write("validation", step=2, source="code", loss=float("inf"))
    writer.close()
    ScalarFile(run.tensorboard, 0).close()
    assert rebuild_tensorboard(run, 2)
    shown = EventAccumulator(str(run.tensorboard)).Reload()
    assert [each.value for each in shown.Scalars("validation/loss")] == [2.5]
    assert [each.value for each in shown.Scalars("validation/code loss")] == [float("inf")]
    logged = [{name: value for name, value in numbers.items() if "validation" in name} for _, numbers in
              earlier_steps(run.events, 2)]  # fmt: skip
    assert logged == [{"validation/loss": 2.5}, {"validation/code loss": float("inf")}]
