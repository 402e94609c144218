"""What the console says of a validation, and what a checkpoint takes of it."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from megatron_patches.callbacks.checkpointing import Checkpointing
from megatron_patches.callbacks.console_log import ConsoleLog, validation_line
from megatron_patches.run.progress import ValidatedRecord, ValidationRecord
from tests.small_training import SmallData

TWELVE = {f"group-{name}": 2 + number / 8 for number, name in enumerate("abcdefghijkl")}


def validated(losses: dict[str, float]) -> ValidatedRecord:
    return ValidatedRecord(
        4, tuple(ValidationRecord(4, 32, 512, name, loss, 10, 160.0, 0.5) for name, loss in losses.items())
    )


def test_one_group_keeps_its_line() -> None:
    assert validation_line(validated({"validation": 2.5})) == "validation after step 4: loss 2.5000 (10 samples)"
    assert validation_line(validated({"en": 2.5})) == "en after step 4: loss 2.5000 (10 samples)"


def test_twelve_groups_are_one_line_which_80_columns_break_between_groups(
    tmp_path: Path, small_data: SmallData, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ConsoleLog(tmp_path / "log", small_data.run(tmp_path), peak=None)
    log._console = Console(force_terminal=True, width=80, highlight=False)  # type: ignore[assignment]
    log.on_record(SimpleNamespace(), validated(TWELVE))  # type: ignore[arg-type]
    log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    shown = capsys.readouterr().out.splitlines()
    told = [f"{name}={loss:.4f}" for name, loss in TWELVE.items()]
    assert line[9:] == f"validation after step 4: loss {' '.join(told)} (10 samples each)"
    assert len(shown) > 1 and max(map(len, shown)) <= 80
    assert [word for each in shown for word in each.split() if word.startswith("group")] == told


def test_a_checkpoint_takes_finite_losses_and_names_the_group_in_any_case() -> None:
    """A manifest holds no NaN: a group without a target must not keep the run from saving itself."""
    trainer: Any = SimpleNamespace(config=SimpleNamespace(best_group="en"), progress=SimpleNamespace(step=4))
    checkpointing = Checkpointing.__new__(Checkpointing)
    checkpointing._validated = None
    assert checkpointing._validation_facts(trainer) == {"best_by": "en"}
    checkpointing.on_record(trainer, validated({"en": 2.5, "empty": math.nan}))
    found = checkpointing._validation_facts(trainer)
    assert found == {"best_by": "en", "validation_losses": {"en": 2.5}, "validation_loss": 2.5}
    checkpointing.on_record(trainer, validated({"en": math.inf, "code": 3.0}))
    assert checkpointing._validation_facts(trainer) == {"best_by": "en", "validation_losses": {"code": 3.0}}
    trainer.progress.step = 5
    assert checkpointing._validation_facts(trainer) == {"best_by": "en"}
    trainer.config.best_group = None
    assert checkpointing._validation_facts(trainer) == {}
