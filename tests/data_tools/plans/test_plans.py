import string
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import read_dataset_manifest
from data_tools.datasets.selection import DocumentRange
from data_tools.plans import making
from data_tools.plans.plans import make_plan, open_plan
from data_tools.samples.windows import TokenWindows
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.manifest import read_manifest, verify_files
from megatron_patches.errors import Damaged, TrainyardError
from tests.data_tools.plans.requests import DATASET_ID, Chosen, lengths_of, plan_of, request_of, texts_of

MakeDataset = Callable[..., Path]

FIVE, TWELVE, THIRTY = list(range(100, 105)), list(range(200, 212)), list(range(300, 330))


@pytest.fixture
def three(make_dataset: MakeDataset) -> Path:
    """Documents of 5, 12 and 30 tokens, an empty one among them."""
    return make_dataset([FIVE, TWELVE, [], THIRTY])


def test_windows_by_hand(three: Path) -> None:
    plan = plan_of(three, "windows")
    assert texts_of(plan) == [
        [FIVE], [TWELVE[:6]], [TWELVE[6:]], [THIRTY[:8]], [THIRTY[8:16]], [THIRTY[16:23]], [THIRTY[23:]],
    ]  # fmt: skip
    facts = plan.facts
    assert (facts.documents, facts.selected_tokens, facts.segments, facts.samples) == (4, 47, 7, 7)
    assert (facts.tokens, facts.distinct_tokens, facts.multiplicity, facts.largest_multiplicity) == (47, 47, 1.0, 1)
    assert facts.fill == pytest.approx(47 / 56) and facts.padding_share == pytest.approx(9 / 56)


def test_windows_that_overlap_by_hand(three: Path) -> None:
    """Two of eight tokens are shared; 12 tokens and the 2 they share are 7 each."""
    plan = plan_of(three, {"name": "windows", "overlap": 0.25})
    assert texts_of(plan) == [
        [FIVE], [TWELVE[:7]], [TWELVE[5:]],
        [THIRTY[:8]], [THIRTY[6:14]], [THIRTY[12:20]], [THIRTY[18:25]], [THIRTY[23:]],
    ]  # fmt: skip
    assert (plan.facts.tokens, plan.facts.distinct_tokens, plan.facts.largest_multiplicity) == (57, 47, 2)
    assert plan.facts.multiplicity == 57 / 47
    assert texts_of(plan_of(three, {"name": "windows", "stride": 6})) == texts_of(plan)


def test_a_stride_of_the_sequence_length_predicts_each_token_but_a_document_s_first(three: Path) -> None:
    windows = [segment for sample in texts_of(plan_of(three, {"name": "windows", "stride": 7})) for segment in sample]
    assert sorted(token for window in windows for token in window[1:]) == sorted(FIVE[1:] + TWELVE[1:] + THIRTY[1:])


def test_packs_by_hand(make_dataset: MakeDataset) -> None:
    """Of lengths 8, 8, 8, 6 | 5 | 3 | 12 = 8 + 4 | 2 | 4: 6 + 2, 5 + 3 and 4 + 4 fill samples of eight."""
    documents = [THIRTY, FIVE, [1, 2, 3], TWELVE, [4, 5], [6, 7, 8, 9]]
    plan = plan_of(make_dataset(documents), "packs")
    assert texts_of(plan) == [
        [THIRTY[:8]], [THIRTY[8:16]], [THIRTY[16:24]], [THIRTY[24:], [4, 5]],
        [FIVE, [1, 2, 3]], [TWELVE[:8]], [TWELVE[8:], [6, 7, 8, 9]],
    ]  # fmt: skip
    assert (plan.facts.cut, plan.facts.dropped, plan.facts.fill, plan.facts.segments) == (2, 0, 1.0, 10)
    item = plan[4]
    assert item["segments"].tolist() == [0] * 5 + [1] * 3
    assert plan.facts.describe() == (
        "7 samples of 8 places, 100.00% of them filled; 56 tokens: 56 of 56 in 6 documents, 1.000 times in the mean "
        "and at most 1; 2 longer documents cut"
    )


def test_longer_documents_may_be_dropped(three: Path) -> None:
    plan = plan_of(three, {"name": "packs", "longer": "drop"})
    assert texts_of(plan) == [[FIVE]]
    assert (plan.facts.cut, plan.facts.dropped, plan.facts.selected_tokens) == (0, 2, 47)
    whole = plan_of(three, {"name": "packs", "longer": "drop"}, read=30)
    assert texts_of(whole) == [[FIVE, TWELVE], [THIRTY]]


def test_packs_are_of_documents_of_one_block(make_dataset: MakeDataset) -> None:
    documents = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11, 12, 13], [14, 15, 16]]
    prefix = make_dataset(documents)
    for block, expected in ((2, [[0, 1], [2, 3]]), (1, [[0], [1], [2], [3]]), (3, [[0, 1], [2], [3]])):
        plan = plan_of(prefix, {"name": "packs", "block_documents": block})
        assert texts_of(plan) == [[documents[number] for number in sample] for sample in expected]


datasets = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(lambda lengths: [*lengths, 1])
"""tokens of documents; a dataset has at least one"""


@settings(max_examples=40)
@given(lengths=datasets, read=st.integers(2, 16), block=st.integers(1, 9), chosen=st.sets(st.integers(0, 29)))
def test_packs_hold_each_token_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], read: int, block: int, chosen: set[int]
) -> None:
    prefix = tmp_path_factory.mktemp("packs") / "made"
    tokens = np.arange(1, sum(lengths) + 1)
    with IndexedDatasetWriter(prefix, "u2") as writer:
        writer.add_documents(tokens, lengths)
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    some = tuple(sorted(number for number in chosen if number < len(lengths)))
    section = {"name": "packs", "block_documents": block}
    plan = plan_of(prefix, section, read, documents=Chosen(some))
    texts = texts_of(plan)
    found = [token for sample in texts for segment in sample for token in segment]
    assert sorted(found) == [token for number in some for token in documents[number].tolist()]
    home = {token: number for number in some for token in documents[number].tolist()}
    for sample in texts:
        assert all(len({home[token] for token in segment}) == 1 for segment in sample)
        assert max(home[s[0]] for s in sample) - min(home[s[0]] for s in sample) < len(lengths)
    assert plan.facts.tokens == plan.facts.distinct_tokens == len(found)
    assert plan.facts.documents == len(some)
    assert plan.facts.cut == sum(lengths[number] > read for number in some)
    assert plan.facts.segments == sum(map(len, texts))
    other = plan_of(prefix, section, read, documents=Chosen(some, at_once=50))
    assert texts_of(other) == texts, "however many documents a selection gives at a time"


@pytest.mark.parametrize("samples", ["packs", {"name": "windows", "overlap": 0.5}])
def test_a_plan_is_found_again(three: Path, samples: object) -> None:
    request, dataset = request_of(three, samples), IndexedDataset(three)
    assert open_plan(request, dataset) is None
    told: list[tuple[int, int]] = []
    made = make_plan(request, dataset, lambda done, total: told.append((done, total)))
    assert told == [(4, 4)]
    found = open_plan(request, IndexedDataset(three))
    assert found is not None and found.facts == made.facts and texts_of(found) == texts_of(made)
    (path,) = three.parent.glob("*.plan")
    first = path.read_bytes()
    manifest = read_manifest(path.with_name(f"{path.name}.manifest.json"))
    assert (manifest.kind, manifest.parents) == ("plan", [DATASET_ID])
    assert verify_files(manifest, path.parent, hashes=True) == []
    make_plan(request, dataset, lambda done, total: None)
    assert path.read_bytes() == first, "the same bytes whenever it is made"
    assert {each.name for each in three.parent.iterdir()} == {
        "made.bin", "made.idx", path.name, f"{path.name}.manifest.json",
    }  # fmt: skip


def test_what_decides_a_plan_is_in_its_name(three: Path) -> None:
    requests = [
        *(request_of(three, samples) for samples in ("windows", "packs", {"name": "windows", "stride": 7})),
        *(request_of(three, {"name": "windows", "balance_last": False}),),
        *(request_of(three, {"name": "packs", **more}) for more in ({"longer": "drop"}, {"block_documents": 9})),
        *(request_of(three, {"name": "packs", "filters": {"minimum_tokens": 2}}), request_of(three, "packs", 9)),
        request_of(three, "windows", documents=DocumentRange(0, 2)),
        request_of(three, "windows", dataset_id="e" * 64),
    ]
    dataset = IndexedDataset(three)
    for request in requests:
        assert open_plan(request, dataset) is None
        make_plan(request, dataset, lambda done, total: None)
    assert len(list(three.parent.glob("*.plan"))) == len(requests)
    same = ({"name": "windows", "stride": 8}, {"name": "windows", "overlap": 0}, {"name": "windows", "overlap": 0.01})
    assert all(open_plan(request_of(three, samples), dataset) is not None for samples in same)


def test_windows_do_not_depend_on_how_many_documents_are_read_at_once(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = make_dataset([list(range(length)) for length in (5, 0, 17, 40, 1, 8, 9)])
    request, found = request_of(prefix, {"name": "windows", "overlap": 0.4}), []
    for block in (1, 2, 3, 100):
        monkeypatch.setattr(making.Maker, "block_documents", block)
        make_plan(request, IndexedDataset(prefix), lambda done, total: None)
        (path,) = prefix.parent.glob("*.plan")
        found.append((path.read_bytes(), read_manifest(path.with_name(f"{path.name}.manifest.json")).id))
    assert len(set(found)) == 1


def test_a_selection_with_gaps(make_dataset: MakeDataset) -> None:
    documents = [[10 * number + place for place in range(number)] for number in range(1, 9)]
    chosen = Chosen((0, 2, 3, 6))
    plan = plan_of(make_dataset(documents), "windows", documents=chosen)
    assert texts_of(plan) == [[documents[number]] for number in chosen.documents]


@settings(max_examples=40)
@given(
    lengths=datasets, chosen=st.sets(st.integers(0, 29)), read=st.integers(1, 12), stride=st.integers(1, 14),
    block=st.integers(1, 9),
)  # fmt: skip
def test_a_stream_of_chosen_documents_is_one_of_a_dataset_of_them(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], chosen: set[int], read: int, stride: int, block: int
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    tokens = np.arange(1, sum(lengths) + 1)
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    some = tuple(sorted(number for number in chosen if number < len(lengths)))
    with IndexedDatasetWriter(folder / "made", "u2") as writer:
        writer.add_documents(tokens, lengths)
    with IndexedDatasetWriter(folder / "alone", "u2") as writer:
        writer.add_documents(np.concatenate([[], *(documents[number] for number in some), [7] * 20]), [
            *(lengths[number] for number in some), 20,
        ])  # fmt: skip
    sizes = lengths_of(read, stride)
    request = request_of(folder / "made", "stream", documents=Chosen(some, block))
    request = type(request)(request.prefix, DATASET_ID, request.documents, request.samples, sizes, None)
    plan = make_plan(request, IndexedDataset(folder / "made"), lambda done, total: None)
    expected = TokenWindows(IndexedDataset(folder / "alone"), (0, len(some)), sizes)
    assert len(plan) == len(expected)
    items = [plan[number] for number in range(len(plan))]
    assert [item["tokens"].tolist() for item in items] == [each["tokens"].tolist() for each in expected]
    assert all(item.keys() == {"tokens"} and item["tokens"].dtype == np.int64 for item in items)
    assert plan.facts.selected_tokens == expected.tokens
    read_once = [token for item in items for token in item["tokens"].tolist()]
    assert (plan.facts.tokens, plan.facts.distinct_tokens) == (len(read_once), len(set(read_once)))
    assert plan.facts.largest_multiplicity == max(map(read_once.count, set(read_once)), default=0)
    ids = [token for number in some for token in documents[number].tolist()]
    assert plan.facts.segments == sum(token != before + 1 for before, token in pairwise([-1, *ids])), "runs are whole"


def test_answers(make_dataset: MakeDataset) -> None:
    """Segments without an answer that something precedes are left out; items say which tokens are answers."""
    prefix = make_dataset([THIRTY, FIVE, TWELVE, [1, 2], [3]])
    dataset = IndexedDataset(prefix)
    # of 30 tokens the last two, which is its fourth part; of five all; of twelve the first alone; of two the second
    marked = np.isin(dataset.tokens, [*THIRTY[28:], *FIVE, TWELVE[0], 2, 3])
    request = request_of(prefix, {"name": "packs"})

    def answers(first: int, count: int) -> np.ndarray:
        assert first >= 0 and count >= 0 and first + count <= len(marked)
        return marked[first : first + count]

    plan = make_plan(request, dataset, lambda done, total: None, answers)
    assert texts_of(plan) == [[THIRTY[24:], [1, 2]], [FIVE]]
    assert (plan.facts.without_answers, plan.facts.segments, plan.facts.tokens) == (6, 3, 13)
    assert plan[0]["answers"].tolist() == [0, 0, 0, 0, 1, 1, 0, 1]
    assert plan[1]["answers"].tolist() == [1] * 5 + [0] * 3
    assert plan[0]["answers"].dtype == np.int64
    assert open_plan(request, dataset, answers) is not None
    assert open_plan(request, dataset) is None, "without answers it is another plan"


@pytest.mark.parametrize("number", [-1, 7])
def test_no_such_sample(three: Path, number: int) -> None:
    plan = plan_of(three, "windows")
    assert len(plan) == 7
    with pytest.raises(IndexError):
        plan[number]


@pytest.mark.parametrize("samples", ["windows", "packs", "stream"])
def test_nothing_to_read(make_dataset: MakeDataset, samples: str) -> None:
    plan = plan_of(make_dataset([[], [], [1]]), samples, documents=Chosen((0, 1)))
    assert (len(plan), plan.facts.documents, plan.facts.tokens, plan.facts.fill) == (0, 2, 0, 1.0)
    assert len(plan_of(make_dataset([[], [1]]), samples, documents=Chosen(()))) == 0


@pytest.mark.parametrize(("chosen", "told"), [((2, 9), "document 9 of 4"), ((1, 1), "twice"), ((3, 2), "twice")])
def test_documents_that_are_not_there(three: Path, chosen: tuple[int, ...], told: str) -> None:
    with pytest.raises(Damaged, match=told):
        plan_of(three, "windows", documents=Chosen(chosen))


def test_filters_of_windows(tmp_path: Path, tokenizer_folder: Path) -> None:
    """What is removed is what the decoded windows say; the end of a document is no text."""
    texts = [
        "The dog runs.\n",
        "What?! No... (never), [ever]",
        "THE FOX AND THE CROW",
        "a  b   c    d     e",
        "no",
    ]
    tokenizer = load_tokenizer(tokenizer_folder)
    assert tokenizer.end_of_document is not None
    with IndexedDatasetWriter(tmp_path / "made", "u2") as writer:
        for text in texts:
            writer.add_document([*tokenizer.encode(text), tokenizer.end_of_document])
    prefix = tmp_path / "made"
    windows = [each[0] for each in texts_of(plan_of(prefix, "windows"))]
    limits = {
        "minimum_characters": 4,
        "maximum_punctuation": 0.25,
        "maximum_non_alphanumeric": 0.5,
        "maximum_upper_case": 0.6,
    }

    def verdict(text: str) -> str:
        """The first filter that removes a text of ASCII."""
        tests = {
            "maximum_punctuation": string.punctuation.__contains__,
            "maximum_non_alphanumeric": lambda character: not character.isalnum(),
            "maximum_upper_case": str.isupper,
        }
        if len(text) < 4:
            return "minimum_characters"
        return next((name for name, test in tests.items() if sum(map(test, text)) / len(text) > limits[name]), "")

    verdicts = [verdict(tokenizer.decode(window).replace("<|endoftext|>", "")) for window in windows]
    section = {"name": "windows", "filters": limits}
    plan = plan_of(prefix, section, tokenizer=tokenizer_folder)
    kept = [window for window, said in zip(windows, verdicts, strict=True) if not said]
    assert kept and [each[0] for each in texts_of(plan)] == kept
    assert plan.facts.removed == {name: verdicts.count(name) for name in limits}
    assert all(plan.facts.removed.values()), plan.facts.removed
    (path,) = tmp_path.glob(f"*windows-{plan.facts.key[:12]}.plan.manifest.json")
    assert read_manifest(path).parents == [DATASET_ID, tokenizer.id]
    with pytest.raises(TrainyardError, match="need the tokenizer"):
        plan_of(prefix, section)


def test_filters_of_packs_look_at_documents(three: Path) -> None:
    """Only the one of 12 tokens stays, though its pieces are shorter."""
    section = {"name": "packs", "filters": {"minimum_tokens": 12, "maximum_tokens": 12}}
    plan = plan_of(three, section)
    assert texts_of(plan) == [[TWELVE[:8]], [TWELVE[8:]]]
    assert (plan.facts.removed, plan.facts.cut) == ({"minimum_tokens": 1, "maximum_tokens": 1}, 1)


def test_a_folder_that_is_read_only(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "plans"
    monkeypatch.setenv("TRAINYARD_PLANS", str(elsewhere))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    plan = plan_of(three, "windows")
    assert [path.name for path in elsewhere.rglob("*.plan")] == [f"made.windows-{plan.facts.key[:12]}.plan"]
    assert not list(three.parent.glob("*.plan"))
    assert open_plan(request_of(three, "windows"), IndexedDataset(three)) is not None


def test_the_inventory_shows_it_as_the_dataset_s_child(
    text_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    manifest, _ = read_dataset_manifest(text_dataset)
    plan = plan_of(text_dataset, "packs", read=64, dataset_id=manifest.id)
    with open_catalogue(tmp_path / "runs", text_dataset.parent) as catalogue:
        found = {each.kind: each for each in catalogue.artefacts("1", [], "ORDER BY manifest")}
        assert resolve_artefact("texts", catalogue).id == manifest.id, "a name means the dataset"
    assert found.keys() == {"dataset", "plan"}
    artefact = found["plan"]
    assert artefact.name == f"texts.packs-{plan.facts.key[:12]}.plan"
    assert (artefact.parents, artefact.samples, artefact.tokens) == ((manifest.id,), len(plan), plan.facts.tokens)
    with pytest.raises(TrainyardError, match="belongs to a plan, expected a dataset"):
        read_dataset_manifest(text_dataset.with_name(artefact.name))
