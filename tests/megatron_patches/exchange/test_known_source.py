"""What an import comes from, where that is an artefact known here."""

import os
from pathlib import Path

import pytest

from megatron_patches.artefacts.inventory.adoption import adopt
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import invalidate
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.known_source import adopted_as, manifest_beside
from tests.small_artefacts import make_artefact

RUN = "tr900a-28K-small"


def test_an_export_says_what_it_is(tmp_path: Path) -> None:
    inner = tmp_path / "out" / "global_step3_universal"
    inner.mkdir(parents=True)
    made = make_artefact(tmp_path / "out", "export", {"global_step3_universal/a.pt": b"1"}, {"step": 3}, ("c" * 64,))
    assert manifest_beside(tmp_path / "out", inner) == made
    assert manifest_beside(inner, inner) is None
    (inner / "a.pt").write_bytes(b"12")
    with pytest.raises(TrainyardError, match=r"a\.pt has 2 bytes.*is not what it was.*remove .*manifest\.json"):
        manifest_beside(tmp_path / "out", inner)


def test_a_manifest_of_another_program_is_none_of_ours(tmp_path: Path) -> None:
    for content in ("{}", "[1]", "\x00", '{"id": "a web app"}'):
        (tmp_path / "manifest.json").write_text(content)
        assert manifest_beside(tmp_path, tmp_path) is None
    (tmp_path / "manifest.json").write_text('{"id": 1, "kind": 2, "parents": 3, "files": 4, "facts": 5}')
    with pytest.raises(TrainyardError, match="is not a manifest of format 1"):
        manifest_beside(tmp_path, tmp_path)


def test_what_was_adopted_is_known_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "theirs" / "global_step20"
    folder.mkdir(parents=True)
    (folder / "mp_rank_00_model_states.pt").write_bytes(b"1")
    runs, data = tmp_path / "runs", tmp_path / "data"
    (adopted,) = adopt(folder, runs / RUN).adopted
    (tmp_path / "link").symlink_to(folder)
    with open_catalogue(runs, data) as catalogue:
        assert adopted_as(catalogue, tmp_path / "link") == adopted.manifest
        assert adopted_as(catalogue, tmp_path) is None
        invalidate(catalogue, resolve_artefact(adopted.manifest.id, catalogue), "a leak")
    os.utime(runs / RUN / "elsewhere")
    with open_catalogue(runs, data) as catalogue, pytest.raises(TrainyardError, match=r"invalid since .*: a leak"):
        adopted_as(catalogue, folder)
