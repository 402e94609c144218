"""What no run may be called is refused by name wherever somebody may choose a name."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.annotations import Annotation, annotate, read_annotations
from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run
from tools.commands.inventory.adopt import adopt_folder
from tools.run_files.name import parse_run_name
from tools.run_views.published import read_published

ODD = ["..", "-x", "a\nb", "a b", "x@5", "\x1b]52;c;x\x07", "rtl\u202e", "x" * 201, "ends."]


@pytest.mark.parametrize("name", ODD)
def test_a_runs_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainyardError, match="cannot be the name of a run") as error:
        load_run(tmp_path / f"{name}.yaml")
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("name", ODD)
def test_adopt(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainyardError, match="cannot be the name of a run"):
        adopt_folder(tmp_path, name, [], None, False)


@pytest.mark.parametrize("name", [*ODD, "tr٣-1B3-x", "tr1-1B3-x.", "tr1-٣B-x"])
def test_a_new_run(name: str) -> None:
    assert parse_run_name(name) is None


@pytest.mark.parametrize("name", ODD)
def test_tags_and_authors(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainyardError, match="cannot be the name of a tag"):
        annotate(tmp_path, Annotation("tag", name))
    monkeypatch.setenv("LOGNAME", name)
    annotate(tmp_path, Annotation("note", "hello"))
    assert read_annotations(tmp_path)[0].by.isdecimal()


@pytest.mark.parametrize("name", ODD)
def test_published_runs(tmp_path: Path, name: str) -> None:
    import yaml

    (tmp_path / "published").mkdir()
    entry = {"title": "t", "source": "s", "runs": [{"name": name}]}
    (tmp_path / "published" / "x.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(TrainyardError, match="cannot be the name of a published run"):
        read_published(tmp_path)
