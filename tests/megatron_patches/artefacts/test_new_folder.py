"""A place where no folder can be made is refused, whatever is in the way."""

import os
from pathlib import Path

import pytest

from megatron_patches.artefacts.new_folder import refuse_place
from megatron_patches.errors import Refused


def test_places_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for place, message in (
        ("file", "exists; name another folder"),
        ("file/out/deep", "file/out/deep cannot be made: .*/file is no folder"),
        ("link", "is a link to what does not exist"),
        ("link/out", "link is no folder"),
        (".", "exists"),
    ):
        with pytest.raises(Refused, match=message):
            refuse_place(tmp_path / place)


def test_a_folder_that_takes_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(Refused, match="may not be written to; name another place"):
        refuse_place(tmp_path / "new" / "out")


def test_a_place_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_place(tmp_path / "new" / "out")
    monkeypatch.chdir(tmp_path)
    refuse_place(Path("out"))
