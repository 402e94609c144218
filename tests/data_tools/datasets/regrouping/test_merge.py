import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import DTYPES, bin_path, idx_path
from data_tools.datasets.manifest import AnswerFacts, SettingsFacts, SourceFacts, manifest_path, read_dataset_manifest
from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from data_tools.datasets.regrouping import merge as module
from data_tools.datasets.regrouping import stretches
from data_tools.datasets.regrouping.merge import merge_datasets
from data_tools.datasets.verification import verify_dataset
from data_tools.domain_tokens.report import InjectionFacts, describe_injection
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from tests.data_tools.datasets.hand_written import (
    contents,
    quick_folder,
    some_documents,
    state_manifest,
    with_manifest,
    write_sequences,
)

FIRST = [[[1, 2], [3]], [], [[4]]]
SECOND = [[[]], [[5, 6], [], [7], [8]]]
READ = SettingsFacts(json_key="text", json_keys=["text"], append_eod=True, parse_special=False)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [with_manifest(tmp_path / "a", FIRST), with_manifest(tmp_path / "b", SECOND)]


def test_shards_merged_are_what_preprocessing_them_in_one_go_makes(tmp_path: Path, tokenizer_folder: Path) -> None:
    sources = []
    for name, texts in (("a", ["one", "", "three\n" * 40]), ("b", ["four"]), ("c", ["", "six six"])):
        sources.append(tmp_path / f"{name}.jsonl")
        sources[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        preprocess(PreprocessRequest([sources[-1]], tmp_path / name, tokenizer_folder, append_eod=True))
    preprocess(PreprocessRequest(sources, tmp_path / "whole", tokenizer_folder, append_eod=True))
    manifest, facts = merge_datasets([tmp_path / "a", tmp_path / "b", tmp_path / "c"], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    whole, of_whole = read_dataset_manifest(tmp_path / "whole")
    assert facts == of_whole == read_dataset_manifest(tmp_path / "merged")[1]
    parts = [read_dataset_manifest(tmp_path / name)[0].id for name in "abc"]
    assert manifest.parents == [*parts, whole.parents[0]]
    assert manifest.by.command == "tools/dataset merge merged a b c"
    verify_dataset(tmp_path / "merged")


@settings(max_examples=25)
@given(
    parts=st.lists(st.tuples(some_documents(), st.sampled_from((1, 2, 3, 4, 5, 8))), min_size=1, max_size=4),
    piece=st.sampled_from((8, 24, 1 << 20)),
)
def test_documents_keep_their_order_and_sequences_whatever_the_types(parts: list[Any], piece: int) -> None:
    with quick_folder() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "PIECE_BYTES", piece)
        inputs = [with_manifest(place / f"{number}", *part) for number, part in enumerate(parts)]
        merge_datasets(inputs, place / "merged")
        joined = [document for documents, _ in parts for document in documents]
        dtype = np.result_type(*(DTYPES[code] for _, code in parts))
        code = next(code for code, each in DTYPES.items() if each == dtype)
        assert contents(place / "merged") == contents(write_sequences(place / "expected", joined, code))
        facts = verify_dataset(place / "merged")
        assert facts.empty_documents == sum(not sum(map(len, document)) for document in joined)


@pytest.mark.parametrize(
    ("codes", "dtype"), [((8, 8), "uint16"), ((8, 4), "int32"), ((1, 2), "int16"), ((8, 3), "int32"), ((4, 5), "int64")]
)
def test_the_narrowest_type_that_holds_both(tmp_path: Path, codes: tuple[int, int], dtype: str) -> None:
    inputs = [with_manifest(tmp_path / str(number), FIRST, code) for number, code in enumerate(codes)]
    assert merge_datasets(inputs, tmp_path / "m")[1].dtype == dtype
    assert IndexedDataset(tmp_path / "m").tokens.tolist() == [1, 2, 3, 4] * 2


def test_other_tokenizers_are_named(tmp_path: Path, two: list[Path]) -> None:
    other = [with_manifest(tmp_path / name, FIRST, tokenizer=name) for name in "xy"]
    with pytest.raises(TrainyardError) as caught:
        merge_datasets([*two, *other], tmp_path / "m")
    told = str(caught.value).splitlines()
    assert [line.partition(",")[0] for line in told] == [
        f"dataset {tmp_path}/x was made with tokenizer of-x (xxxxxxxxxxxx)",
        f"dataset {tmp_path}/y was made with tokenizer of-y (yyyyyyyyyyyy)",
    ]
    assert not {name for name in names(tmp_path) if name.startswith("m")}


def test_two_kinds_of_documents_are_no_dataset(tmp_path: Path) -> None:
    inputs = [
        with_manifest(tmp_path / "a", FIRST, settings=READ),
        with_manifest(tmp_path / "b", SECOND, settings=READ.model_copy(update={"append_eod": False})),
    ]
    with pytest.raises(TrainyardError, match=r"b was made with append_eod False, .*a with True: .*tools/preprocess"):
        merge_datasets(inputs, tmp_path / "m")


@pytest.mark.parametrize(
    ("others", "merged"),
    [
        (READ, READ),
        (None, None),
        (
            READ.model_copy(update={"json_key": "body"}),
            READ.model_copy(update={"json_key": "text,body", "json_keys": ["text,body"]}),
        ),
    ],
)
def test_settings_that_agree_stay(tmp_path: Path, others: SettingsFacts | None, merged: SettingsFacts | None) -> None:
    inputs = [
        with_manifest(tmp_path / "a", FIRST, settings=READ),
        with_manifest(tmp_path / "b", SECOND, settings=others),
    ]
    assert merge_datasets(inputs, tmp_path / "m")[1].settings == merged


PAIRS = READ.model_copy(update={"records": "pairs", "json_key": "q,a", "json_keys": ["q", "a"], "separator": " "})


@pytest.mark.parametrize(
    ("changes", "merged"),
    [
        ([{"tokens_asked": 5}, {"tokens_asked": 5}], {}),
        ([{"tokens_asked": 5}, {}], {}),
        (
            [{"synthetic_documents": 2, "synthetic_seed": 7}, {"synthetic_documents": 3, "synthetic_seed": 7}, {}],
            {"synthetic_documents": 5, "synthetic_seed": 7},
        ),
        (
            [{"synthetic_documents": 2, "synthetic_seed": 7}, {"synthetic_documents": 2, "synthetic_seed": 8}],
            {"synthetic_documents": 4},
        ),
        (
            [{"synthetic_documents": 2, "synthetic_seed": 7}, {"synthetic_documents": None}],
            {"synthetic_documents": None},
        ),
    ],
)
def test_settings_of_a_part_alone_are_summed_or_left_out(
    tmp_path: Path, changes: list[dict[str, Any]], merged: dict[str, Any]
) -> None:
    inputs = [
        with_manifest(tmp_path / str(number), FIRST, settings=READ.model_copy(update=changed))
        for number, changed in enumerate(changes)
    ]
    assert merge_datasets(inputs, tmp_path / "m")[1].settings == READ.model_copy(update=merged)


@pytest.mark.parametrize("changed", [{"inject": "weak"}, {"records": "pairs"}, {"separator": "x"}])
def test_documents_made_otherwise_are_no_dataset(tmp_path: Path, two: list[Path], changed: dict[str, Any]) -> None:
    with_manifest(two[0], FIRST, settings=READ)
    with_manifest(two[1], FIRST, settings=READ.model_copy(update=changed))
    with pytest.raises(TrainyardError, match=f"b was made with {next(iter(changed))} "):
        merge_datasets(two, tmp_path / "m")


def test_answers_are_summed(tmp_path: Path) -> None:
    inputs = [
        with_manifest(tmp_path / name, documents, settings=PAIRS, answers=AnswerFacts(answers=answers, tokens=tokens))
        for name, documents, answers, tokens in (("a", FIRST, 1, 1), ("b", SECOND, 2, 1))
    ]
    merge_datasets(inputs, tmp_path / "m")
    facts = verify_dataset(tmp_path / "m")
    assert (facts.answers, facts.settings) == (AnswerFacts(answers=3, tokens=2), PAIRS)
    adopted = with_manifest(tmp_path / "c", SECOND)
    facts = merge_datasets([*inputs, adopted], tmp_path / "n")[1]
    assert (facts.answers, facts.settings) == (None, None)


def test_what_injection_did_is_summed(tmp_path: Path) -> None:
    counts = InjectionFacts(
        mode="weak", bare={"<MUL_2_2_4>": 2}, with_product={"<MUL_1_1_1>": 1}, tenths=[3] + [0] * 9, documents=2,
        left_alone=1, literal=4,
    )  # fmt: skip
    of_weak = READ.model_copy(update={"inject": "weak"})
    inputs = [
        with_manifest(tmp_path / name, FIRST, settings=of_weak, injection=injection)
        for name, injection in (
            ("a", counts),
            ("b", counts.model_copy(update={"bare": {"<MUL_3_3_9>": 1}})),
            ("c", None),
        )
    ]
    facts = merge_datasets(inputs[:2], tmp_path / "m")[1]
    assert facts.injection == InjectionFacts(
        mode="weak", bare={"<MUL_2_2_4>": 2, "<MUL_3_3_9>": 1}, with_product={"<MUL_1_1_1>": 2}, tenths=[], documents=4,
        left_alone=2, literal=8,
    )  # fmt: skip
    assert facts == read_dataset_manifest(tmp_path / "m")[1]
    assert ("by tenth of documents", "not known") in describe_injection(facts.injection)
    assert merge_datasets(inputs, tmp_path / "n")[1].injection is None  # of one it is not known


def test_a_manifest_with_tokens_that_there_are_not(tmp_path: Path, two: list[Path]) -> None:
    """Else the facts of a merged dataset would grow with what manifests invent."""
    bad = InjectionFacts.model_construct(
        mode="weak", bare={"<MUL_0_0_0>": 1}, with_product={}, tenths=[], documents=1, left_alone=0, literal=0
    )
    with_manifest(two[1], SECOND, injection=bad)
    with pytest.raises(TrainyardError, match=r"misstates the facts injection.bare"):
        merge_datasets(two, tmp_path / "m")


def test_sources_are_joined_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(name: str, documents: int) -> SourceFacts:
        return SourceFacts(name=name, size=9, sha256="0" * 64, documents=documents)

    given = [[source("x", 1), source("y", 2)], [source("y", 1), source("z", 1)]]
    inputs = [
        with_manifest(tmp_path / str(number), FIRST, sources=sources, number_not_read=number, not_read=["n"] * number)
        for number, sources in enumerate(given)
    ]
    facts = merge_datasets(inputs, tmp_path / "m")[1]
    assert facts.sources == [source("x", 1), source("y", 3), source("z", 1)]
    assert (facts.number_not_read, facts.not_read) == (1, ["n"])
    monkeypatch.setattr(module, "SOURCES_NAMED", 2)
    assert merge_datasets(inputs, tmp_path / "m", overwrite=True)[1].sources == [source("x", 1), source("y", 3)]


def test_what_may_not_be_written(tmp_path: Path, two: list[Path]) -> None:
    merge_datasets(two, tmp_path / "m")
    before = contents(tmp_path / "m")
    for inputs, output, overwrite, told in (
        (two, "m", False, "m.bin exists already; choose another name, or add --overwrite"),
        (two, "a", True, "a is read and cannot be written"),
        ([*two, two[0]], "n", False, "a is named twice; name each dataset once"),
        (two, "n\n", False, "cannot be called"),
    ):
        with pytest.raises(TrainyardError, match=told):
            merge_datasets(inputs, tmp_path / output, overwrite)
    assert contents(tmp_path / "m") == before
    merge_datasets(two[::-1], tmp_path / "m", overwrite=True)
    assert IndexedDataset(tmp_path / "m").tokens.tolist() == [5, 6, 7, 8, 1, 2, 3, 4]


def test_links_and_copies_are_the_dataset_they_lead_to(tmp_path: Path, two: list[Path]) -> None:
    """Names of files stay those of the manifest, as in a folder of links to chosen shards."""
    before = [contents(each) for each in two]
    for name, put in (("links", os.symlink), ("copies", shutil.copy)):
        (tmp_path / name).mkdir()
        for path in tmp_path.glob("a.*"):
            put(path, tmp_path / name / path.name)
        with pytest.raises(TrainyardError, match=rf"{name}/a is the same dataset as .*a; name each dataset once"):
            merge_datasets([*two, tmp_path / name / "a"], tmp_path / "m")
    with pytest.raises(TrainyardError, match="a is read and cannot be written"):
        merge_datasets([tmp_path / "links" / "a", two[1]], two[0], overwrite=True)
    assert [contents(each) for each in two] == before and not list(tmp_path.glob("m.*"))


def _swap(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(bytes(content))


def _mark(prefix: Path) -> None:
    path = manifest_path(prefix)
    status = Status(state="invalid", reason="a fault", date="2026-01-01T00:00:00+00:00")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))


@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [
        (lambda prefix: manifest_path(prefix).unlink(), TrainyardError, "b has no manifest .*tools/dataset adopt"),
        (lambda prefix: bin_path(prefix).unlink(), Missing, "b.bin does not exist"),
        (lambda prefix: os.truncate(bin_path(prefix), 6), Damaged, "b.bin is truncated"),
        (lambda prefix: bin_path(prefix).write_bytes(bytes(8)), Damaged, "b.bin has sha256 .*nothing was written"),
        (lambda prefix: _swap(idx_path(prefix)), Damaged, "b.idx has sha256 "),
        (lambda prefix: with_manifest(prefix, SECOND, tokens=5), Damaged, "tokens: 4 found, the manifest says 5"),
        (lambda prefix: with_manifest(prefix, SECOND, 4, dtype="int64"), Damaged, "dtype: int32 found"),
        (lambda prefix: with_manifest(prefix, [[[1, -1]]], 4), Damaged, "the negative token id -1"),
        (lambda prefix: with_manifest(prefix, FIRST, 6), TrainyardError, "holds float64, expected integer token ids"),
        (_mark, Refused, "marks this dataset invalid .*a fault"),
    ],
)
def test_what_is_damaged_is_not_passed_on(
    tmp_path: Path, two: list[Path], damage: Callable[[Path], object], kind: type[TrainyardError], told: str
) -> None:
    damage(two[1])
    before = names(tmp_path)
    with pytest.raises(kind, match=told):
        merge_datasets(two, tmp_path / "m")
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("offset", "value", "told"),
    # FIRST as uint16 has 3 sequences: lengths 34..46, pointers 46..70, document indices 70..102
    [(54, 2, "contradict each other"), (78, 3, "runs backwards or out of the dataset")],
)
def test_an_index_that_its_own_manifest_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int, value: int, told: str
) -> None:
    """Whoever makes a manifest of a damaged index gets past its hash, and no further."""
    prefix = write_sequences(tmp_path / "a", FIRST)
    content = bytearray(idx_path(prefix).read_bytes())
    content[offset : offset + 8] = value.to_bytes(8, "little")
    idx_path(prefix).write_bytes(bytes(content))
    state_manifest(prefix, FIRST, 8, "t", None)
    monkeypatch.setattr(IndexedDataset, "check_pointers", lambda self, sequences: None)  # as one it does not look at
    with pytest.raises(Damaged, match=told):
        merge_datasets([prefix], tmp_path / "m")
    assert names(tmp_path) == {"a.bin", "a.idx", "a.manifest.json"}


def test_a_file_that_ends_early_while_it_is_read(tmp_path: Path, two: list[Path]) -> None:
    def shorten(done: int, total: int) -> None:
        if done == 8:
            os.truncate(bin_path(two[1]), 2)

    with pytest.raises(Damaged, match=r"b.bin was shortened while it was read"):
        merge_datasets(two, tmp_path / "m", on_progress=shorten)


@pytest.mark.parametrize("failing", range(1, 9))
def test_a_failure_at_any_write_leaves_nothing(
    tmp_path: Path, two: list[Path], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Files are synced, then their folder: each is a place where a disk can refuse."""
    calls = iter(range(1, 99))
    synced = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError("no space left")
        synced(descriptor)

    monkeypatch.setattr("megatron_patches.atomic_files.os.fsync", fsync)
    before = names(tmp_path)
    with suppress(OSError):
        merge_datasets(two, tmp_path / "m")
        assert failing > 5, "fewer writes than this test expects"
    left = names(tmp_path) - before
    if left:
        assert left == {"m.bin", "m.idx", "m.manifest.json"}
        verify_dataset(tmp_path / "m")


def _merge_until(inputs: list[Path], output: Path, instant: int) -> bool:
    """Merges in another process, which SIGKILL ends at the n-th file that it opens, renames or removes by the output's
    name; whether it came to its end.
    """
    process = os.fork()
    if process == 0:
        seen = 0

        def die(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in {"os.rename", "os.remove", "open"} and any(
                f"/{output.name}." in str(each) for each in arguments
            ):
                seen += 1
                if seen > instant:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        merge_datasets(inputs, output, overwrite=True)
        os._exit(0)
    return not os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_no_half_dataset(tmp_path: Path, two: list[Path]) -> None:
    new, old = tmp_path / "m", contents(write_sequences(tmp_path / "old", SECOND + FIRST))
    expected = contents(write_sequences(tmp_path / "expected", FIRST + SECOND))
    instant, done = 0, False
    while not done:
        merge_datasets(two[::-1], new, overwrite=True)
        done = _merge_until(two, new, instant)
        instant += 1
        try:
            verify_dataset(new)
        except TrainyardError as error:
            assert not manifest_path(new).exists(), error
            assert not done
        else:
            assert contents(new) == expected if done else contents(new) in (old, expected)
    assert instant > 8
