"""Plans of samples."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.plans.plans import open_plan
from megatron_patches.artefacts.manifest import content_id, manifest_bytes, read_manifest, record_file
from megatron_patches.errors import TrainyardError
from tests.data_tools.plans.requests import Chosen, plan_of, request_of
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_bytes, odd_entries, odd_json

NewPlace = Callable[[], Place]
kinds = st.sampled_from(("windows", "packs", "stream"))
CHOSEN = Chosen((0, 2, 3))


@cache
def files_of(kind: str) -> dict[str, bytes]:
    """A plan of small documents, and their dataset."""
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "data"
        with IndexedDatasetWriter(prefix, "<u2") as writer:
            for length in (3, 0, 20, 7):
                writer.add_document(range(length))
        plan_of(prefix, kind, documents=CHOSEN)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def make(place: Place, kind: str) -> tuple[Path, Callable[[], int]]:
    """Its file, and what opens it, reads all of it, and counts the tokens."""
    prefix = place.inside / "data"
    for name, content in files_of(kind).items():
        (place.inside / name).write_bytes(content)

    def read() -> int:
        samples = open_plan(request_of(prefix, kind, documents=CHOSEN), IndexedDataset(prefix))
        return 0 if samples is None else sum(len(samples[number]["tokens"]) for number in range(len(samples)))

    (path,) = place.inside.glob("*.plan")
    return path, read


def state(path: Path, **changed: Any) -> None:
    """A manifest that says something else, with the id that fits it."""
    new = read_manifest(path).model_copy(update=changed)
    identity = content_id(new.kind, new.parents, new.files, new.facts)
    path.write_bytes(manifest_bytes(new.model_copy(update={"id": identity})))


@cases(60)
@given(data=st.data(), kind=kinds)
def test_the_file_of_a_plan(new_place: NewPlace, data: st.DataObject, kind: str) -> None:
    """With a manifest that says of it what is there, so that only what reads the file can refuse it."""
    path, read = make(new_place(), kind)
    path.write_bytes(data.draw(odd_bytes(path.read_bytes())))
    manifest = path.with_name(f"{path.name}.manifest.json")
    state(manifest, files=[record_file(path, path.parent)])
    found = attempt(read)
    assert path.name in str(found) if isinstance(found, TrainyardError) else found <= 100


@cases(60)
@given(data=st.data(), kind=kinds)
def test_the_manifest_of_a_plan(new_place: NewPlace, data: st.DataObject, kind: str) -> None:
    """Also one whose id fits what it says, as whoever wants to mislead would write it."""
    path, read = make(new_place(), kind)
    manifest = path.with_name(f"{path.name}.manifest.json")
    old = read_manifest(manifest)
    if data.draw(st.booleans()):
        manifest.write_bytes(data.draw(odd_json(old.model_dump())))
    else:
        key, value = data.draw(st.sampled_from(list(old.facts.items())))
        odd = data.draw(st.sampled_from([None, -1, 0, 1, 2**31, 2**63, 2**70, 0.5, "", [], {}, value]))
        state(manifest, facts={**old.facts, key: odd})
    found = attempt(read)
    assert path.name in str(found) if isinstance(found, TrainyardError) else found <= 100


@cases(30)
@given(put=odd_entries(), kind=kinds, ending=st.sampled_from(("", ".manifest.json")))
def test_what_stands_where_a_plan_is_expected(
    new_place: NewPlace, put: Callable[[Place, Path], None], kind: str, ending: str
) -> None:
    place = new_place()
    path, read = make(place, kind)
    put(place, path.with_name(path.name + ending))
    found = attempt(read)
    assert isinstance(found, TrainyardError) or (ending and found == 0)
    place.check()
