"""Tables of GLUE's tasks, which people download."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given

from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning
from megatron_patches.evaluation.tasks.formats.glue import COLA, QQP, STSB, GlueFormat
from megatron_patches.evaluation.tasks.formats.glue_files import read_glue
from megatron_patches.evaluation.tasks.formats.local_format import Source
from megatron_patches.evaluation.tasks.task import TaskSettings
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_text

NewPlace = Callable[[], Place]
_HEADS = {COLA: "", QQP: "question1\tquestion2\tis_duplicate\n", STSB: "sentence1\tsentence2\tscore\n"}
_ROWS = {COLA: "gj04\t1\t*\tIt was dark.\n", QQP: "Was it?\tIs it?\t0\n", STSB: "It was.\tIt is.\t3.5\n"}


@pytest.mark.parametrize("format", _HEADS, ids=lambda format: format.word)
def test_a_table(format: GlueFormat, new_place: NewPlace) -> None:
    valid = _HEADS[format] + 3 * _ROWS[format]

    @cases(60)
    @given(content=odd_text(valid))
    def check(content: bytes) -> None:
        folder = new_place().inside
        (folder / "train.tsv").write_text(valid)
        (folder / "dev.tsv").write_bytes(content)
        found = attempt(lambda: read_glue(format, Source(folder)))
        if isinstance(found, TrainyardError):
            assert "dev.tsv" in str(found)
            return
        task = FineTuningTask("a", TaskSettings(), format, found, FineTuning())
        assert json.dumps(task.definition)
        assert all(0 <= row.label <= 5 for row in found.asked)

    check()
