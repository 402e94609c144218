"""A run's course through its launches."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import (
    BEGAN,
    Beginning,
    left_behind,
    read_beginnings,
    record_beginning,
)
from megatron_patches.artefacts.descent import Position
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged


def test_beginnings_are_read_in_the_order_of_launches(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert read_beginnings(run) == []
    written = [Beginning(2, 20, "ab"), Beginning(10, 0, None), Beginning(11, 10, "cd", rollback=True)]
    for each in reversed(written):
        folder = run.launches / f"{each.launch:04d}"
        folder.mkdir(parents=True)
        record_beginning(folder, each)
    (run.launches / "0003").mkdir()  # it never began
    assert read_beginnings(run) == written


@pytest.mark.parametrize("content", ["", "[]", '{"step": -1, "checkpoint": null}', '{"step": 3, "checkpoint": 4}'])
def test_a_damaged_record_is_an_error(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path / "run")
    (run.launches / "0001").mkdir(parents=True)
    (run.launches / "0001" / BEGAN).write_text(content)
    with pytest.raises(Damaged, match=BEGAN):
        read_beginnings(run)


def test_what_was_saved_beyond_a_later_beginning_is_left_behind() -> None:
    saved = [Position(1, 10), Position(1, 20), Position(1, 30), Position(2, 25), Position(3, 12)]
    second, third = Beginning(2, 20, "a"), Beginning(3, 10, "b")
    assert left_behind(saved, [Beginning(1, 0, None), second, third]) == [None, third, second, third, None]
    # a launch that has saved nothing leaves nothing behind: what others saved is the furthest that there is
    assert left_behind(saved[:3], [second]) == [None] * 3
    back = Beginning(4, 10, "c", rollback=True)
    assert left_behind(saved[:3], [back]) == [None, back, back]
