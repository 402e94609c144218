"""A checkpoint that is marked for its data's sake may be used where the data may; one of a bad parent may not."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import DATA_PARENTS, inspect
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from tests.small_artefacts import RUN, make_checkpoint

PARENT, ONE, TWO, TOKENIZER = (digit * 64 for digit in "1234")


@pytest.mark.parametrize(
    ("cause", "may"), [(ONE, True), (TWO, True), (TOKENIZER, True), (PARENT, False), ("9" * 64, False)]
)
@pytest.mark.parametrize("parents", [(PARENT, ONE, TWO, TOKENIZER), (ONE, TWO, TOKENIZER)])
def test_datasets_of_a_blend_are_its_data(tmp_path: Path, cause: str, may: bool, parents: tuple[str, ...]) -> None:
    identity = {"blend": [["one", 1], ["two", 2]], "tokenizer": TOKENIZER}
    make_checkpoint(tmp_path, 3, parents=parents, identity=identity, **{DATA_PARENTS: 3})
    folder = tmp_path / RUN / "checkpoints" / "step-0000000003"
    status = Status(state="invalid", reason="came from it", date="2026-01-01", cause=cause)
    path = folder / "manifest.json"
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    assert bool(inspect(folder, True).problems) != may
    assert inspect(folder, False).problems


@pytest.mark.parametrize("count", [None, -1, 10**30, "3", True, 3.0])
def test_of_an_earlier_version_the_identity_names_them(tmp_path: Path, count: object) -> None:
    identity = {"dataset": ONE, "tokenizer": TOKENIZER}
    facts = {} if count is None else {DATA_PARENTS: count}
    make_checkpoint(tmp_path, 3, parents=(PARENT, ONE, TOKENIZER), identity=identity, **facts)  # type: ignore[arg-type]
    folder = tmp_path / RUN / "checkpoints" / "step-0000000003"
    path = folder / "manifest.json"
    for cause, may in ((ONE, True), (TOKENIZER, True), (PARENT, False)):
        status = Status(state="invalid", reason="came from it", date="2026-01-01", cause=cause)
        write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
        assert bool(inspect(folder, True).problems) != may, cause
