"""Names of files and folders that others chose: what they say is missing is told without being counted out."""

from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import find_checkpoint_folder, list_deepspeed_folder, listed
from megatron_patches.exchange.matching import NAMES_TOLD, _paragraph


@pytest.mark.parametrize("rank", [10**9, 10**200])
def test_a_rank_of_any_number(tmp_path: Path, rank: int) -> None:
    for name in (f"mp_rank_{rank:02d}_model_states.pt", "mp_rank_00_model_states.pt"):
        (tmp_path / name).touch()
    with pytest.raises(TrainyardError, match=r"lacks mp_rank_01_model_states.pt, .* and perhaps more; copy"):
        list_deepspeed_folder(tmp_path)
    (tmp_path / f"mp_rank_{rank:02d}_model_states.pt").rename(tmp_path / f"layer_01-model_{rank}-model_states.pt")
    with pytest.raises(TrainyardError, match=r"lacks layer_01-model_00-model_states.pt, "):
        list_deepspeed_folder(tmp_path)


@pytest.mark.parametrize("content", [b"..", b"../x", b"/etc", b"", b"a\x00b", b"\xff\x1b]52;c\x07", b"x" * 5000])
def test_what_latest_may_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "latest").write_bytes(content)
    with pytest.raises(TrainyardError) as caught:
        find_checkpoint_folder(tmp_path)
    assert "latest" in str(caught.value) and str(caught.value).isprintable()
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "latest").write_text("global_step5\n")
    assert find_checkpoint_folder(tmp_path) == tmp_path / "global_step5"


def test_lists_of_a_mismatch_are_short_unless_all_is_asked_for() -> None:
    names = [f"layer.{number}.\x1b[2J.weight (3, 4)" for number in range(100)]
    told = _paragraph("theirs", names, whole=False).splitlines()
    assert told[0] == "theirs (100):" and len(told) == NAMES_TOLD + 2
    assert told[-1] == "  and 92 more (--all-names tells them)"
    assert "\x1b" not in "".join(told)
    assert len(_paragraph("theirs", names, whole=True).splitlines()) == 101
    assert _paragraph("theirs", [], whole=False) == ""
    assert listed(names).endswith(" and 88 more")
