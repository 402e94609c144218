"""Names of datasets, and datasets in folders: of files, and as `save_to_disk` writes them."""

import gzip
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from data_tools.reading import hugging_face
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.entries import documents_of
from data_tools.reading.hugging_face import HubDataset, open_hub
from data_tools.reading.hugging_face_name import HubSpec, chosen_split, evaluation_split, is_hub
from data_tools.reading.hugging_face_rows import RowsHash, row_blocks
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from tests.data_tools.reading.hugging_face_worker import read_part

TEXTS = [
    *["", " ", "\n", "a\u2028b", "🚂 \u0301e", "\x00\x1f", "<|endoftext|>", "null", '"quoted"', "\\ud83d"],
    *[f"{n} " + "text " * random.Random(n).randrange(400) for n in range(990)],
]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def opened(folder: Path, **options: Any) -> HubDataset:
    return open_hub(HubSpec.parse(f"hf:{folder}"), **options)


def texts_of(dataset: HubDataset, index: int = 0, row: int = 0) -> list[str | None]:
    return [text for texts, _ in read_part(dataset.parts()[index], row)[0] for text in texts]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_jsonl(folder: Path) -> None:
    (folder / "train-0.jsonl").write_bytes(lines([{"text": text, "n": 1} for text in TEXTS]))


def as_packed(folder: Path) -> None:
    (folder / "train-0.jsonl.gz").write_bytes(gzip.compress(lines([{"text": text} for text in TEXTS])))


def as_array(folder: Path) -> None:
    (folder / "train-0.json").write_text(json.dumps([{"text": text} for text in TEXTS]))


def as_parquet(folder: Path) -> None:
    table = pyarrow.table({"n": list(range(len(TEXTS))), "text": TEXTS})
    pyarrow.parquet.write_table(table, folder / "train-0.parquet", row_group_size=300)


def as_arrow(folder: Path) -> None:
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.ipc.new_file(folder / "train-0.arrow", table.schema) as writer:
        writer.write_table(table, 170)


def as_saved(folder: Path) -> None:
    import datasets

    dataset = datasets.Dataset.from_dict({"n": list(range(len(TEXTS) + 5)), "text": ["x"] * 5 + TEXTS})
    dataset.select(range(5, len(TEXTS) + 5)).save_to_disk(folder, num_shards=3)


@pytest.mark.parametrize("write", [as_jsonl, as_packed, as_array, as_parquet, as_arrow, as_saved])
def test_texts_of_every_format_are_the_same_from_any_row_on(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "collection"
    folder.mkdir()
    write(folder)
    dataset = opened(folder)
    (part,) = dataset.parts()
    batches, sha256 = read_part(part, hashed=True)
    assert [text for texts, _ in batches for text in texts] == TEXTS
    assert sha256 == _sha256()
    assert part.content().size == sum(len(text.encode()) for text in TEXTS)
    for row in (*(position["row"] for _, position in batches), 1, 199, 200, 201, 299, 300, 777, 1000):
        assert texts_of(dataset, 0, row) == TEXTS[row:]
    assert read_part(pickle.loads(pickle.dumps(part)), 500)[0] == read_part(part, 500)[0]
    told = json.dumps([dataset.identity, part.name])
    assert str(tmp_path) not in told and part.name.startswith("collection/train/")
    documents = [documents_of(block, ["text"], 1 << 20) for block in part.blocks()]
    assert [text for each in documents for text in each.texts[0]] == TEXTS
    assert dataset.identity["fingerprint"] == opened(folder).identity["fingerprint"]
    with pytest.raises(TrainyardError, match="1,000 rows, fewer than the 1,001"):
        read_part(part, 1001)
    with pytest.raises(TrainyardError, match="no place in rows"):
        list(part.blocks({"row": "3"}))


def _sha256() -> str:
    seen = RowsHash(1)
    seen.add(pyarrow.table({"text": TEXTS}))
    return seen.content().sha256


def test_the_hash_is_the_same_however_rows_are_cut_and_another_for_other_texts() -> None:
    table = pyarrow.table({"a": ["x", None, "", "yz"], "b": [[1], None, [], [2, 3]]})

    def hashed(*tables: pyarrow.Table) -> str:
        seen = RowsHash(2)
        for each in tables:
            seen.add(each)
        return seen.content().sha256

    whole = hashed(table)
    assert whole == hashed(table.slice(0, 1), table.slice(1, 2), table.slice(3))
    assert whole == hashed(pyarrow.concat_tables([table.slice(0, 3), table.slice(3)]))
    others = [
        pyarrow.table({"a": a, "b": b})
        for a, b in [
            (["x", "", None, "yz"], [[1], None, [], [2, 3]]), (["xy", None, "", "z"], [[1], None, [], [2, 3]]),
            (["x", None, "", "yz"], [[1], [], None, [2, 3]]), (["x", None, ""], [[1], None, []]),
        ]
    ]  # fmt: skip
    assert len({whole, *(hashed(other) for other in others)}) == 5


def test_blocks_are_about_a_megabyte() -> None:
    sizes = [10, 300_000, 2 * BLOCK_BYTES, *[5_000] * 600, 10]
    table = pyarrow.table({"text": ["t" * size for size in sizes]})
    blocks = list(row_blocks([table.slice(start, 200) for start in range(0, len(sizes), 200)], "origin", 0))
    assert sum(block.entries for block in blocks) == len(sizes)
    assert [block.first for block in blocks] == [1, *(block.position["row"] + 1 for block in blocks[:-1])]  # type: ignore[operator]
    assert all(len(block.content) < 1.1 * BLOCK_BYTES or block.entries == 1 for block in blocks)
    assert len(blocks) < 9
    assert blocks[-1].source_bytes == pytest.approx(sum(sizes), rel=0.01)


def test_a_dataset_on_disk_is_parts_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    splits = {name: datasets.Dataset.from_dict({"text": TEXTS[:n], "n": [1] * n}) for name, n in (("a", 7), ("dev", 3))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "d")
    monkeypatch.setattr(hugging_face, "PART_BYTES", 20)
    dataset = opened(tmp_path / "d", split="a")
    assert (dataset.splits, dataset.split, dataset.rows) == (("a", "dev"), "a", 7)
    parts = dataset.parts()
    assert len(parts) > 2 and parts[1].name == f"d/a/00002-of-{len(parts):05d}"
    assert [text for index in range(len(parts)) for text in texts_of(dataset, index)] == TEXTS[:7]
    with pytest.raises(Missing, match="no split 'train' and several others, a, dev"):
        opened(tmp_path / "d")
    with pytest.raises(Missing, match="d, dev has no column 'words', only text, n"):
        opened(tmp_path / "d", split="dev", columns=["words"])
    with pytest.raises(Refused, match="leave out the revision"):
        opened(tmp_path / "d", split="a", revision="main")
    with pytest.raises(Refused, match="leave out #x"):
        open_hub(HubSpec.parse(f"hf:{tmp_path}/d#x"))


def test_several_columns_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines([{"b": "1", "c": [{"role": "user"}], "a": "2"}] * 3))
    (part,) = opened(tmp_path, columns=["a", "c"]).parts()
    (block,) = part.blocks()
    table = pyarrow.ipc.open_stream(block.content).read_all()
    assert table.to_pylist() == [{"a": "2", "c": [{"role": "user"}]}] * 3
    assert table.column_names == ["a", "c"]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ([{"n": 1}] * 3, "has no column 'text', only n"),
        ([{"text": 5}], "has int64 in column 'text', where the dataset has texts"),
        ([{"text": "2020-01-01"}] * 2, r"has timestamp\[s\] in column 'text'.* texts that are all dates"),
        ([{"text": "a"}, {"text": 5}], "cannot be read: .* changed from string to number in row 1"),
        ([{"text": {"a": 1}}], "has struct<a: int64> in column 'text'"),
        ([{"text": "half \ud800"}], "surrogate"),
    ],
)
def test_what_the_library_would_change_without_a_word_is_an_error(
    tmp_path: Path, second: list[dict[str, Any]], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train-0.jsonl").write_bytes(lines([{"text": "a"}, {"text": "2020-01-01"}, {"text": None}]))
    (tmp_path / "train-1.jsonl").write_bytes(lines(second))
    dataset = opened(tmp_path)
    assert texts_of(dataset) == ["a", "2020-01-01", None]
    with pytest.raises(TrainyardError, match=rf"train, shard 2 of 2 \(train-1.jsonl\) .*{told}"):
        texts_of(dataset, 1)
    assert capfd.readouterr().err == ""


def test_a_column_that_one_file_of_columns_lacks(tmp_path: Path) -> None:
    as_parquet(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"n": [1]}), tmp_path / "train-1.parquet")
    with pytest.raises(TrainyardError, match=r"shard 2 of 2 \(train-1.parquet\) has no column 'text'"):
        texts_of(opened(tmp_path), 1)


@pytest.mark.parametrize("write", [as_packed, as_parquet, as_saved])
def test_a_file_that_is_cut_off_is_no_end(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    file = max(tmp_path.glob("*-0*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(Damaged, match=r"cannot be read|cannot be opened|is not what save_to_disk wrote"):
        texts_of(opened(tmp_path))


def test_a_saved_dataset_without_its_state(tmp_path: Path) -> None:
    as_saved(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(Damaged, match="save it again"):
        opened(tmp_path)


def test_a_program_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "made.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    as_jsonl(folder)
    with pytest.raises(Refused, match="never run"):
        opened(folder)
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="hf:"):
        opened(tmp_path)


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub("hf:a/b") and not is_hub("data/hf:x.jsonl")
    assert HubSpec.parse("hf:a/b") == ("a/b", None)
    assert HubSpec.parse("hf:a/b#en.c4") == ("a/b", "en.c4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b#c").mkdir()
    assert HubSpec.parse("hf:a/b").name == "b"
    assert HubSpec.parse("hf:a/b#c") == ("a/b#c", None)
    assert HubSpec.parse("hf:a/b#d") == ("a/b", "d")
    for wrong in ("hf:", "hf:squad", "hf:a/b/c", "hf:https://huggingface.co/a/b", "hf:a/b d"):
        with pytest.raises(TrainyardError, match="is no dataset: expected hf:OWNER/NAME"):
            HubSpec.parse(wrong)
    with pytest.raises(Missing, match="folder /no/such does not exist"):
        HubSpec.parse("hf:/no/such")
    with pytest.raises(TrainyardError, match="no configuration after the #"):
        HubSpec.parse("hf:x/y#")


def test_splits() -> None:
    assert evaluation_split(["train", "test", "validation"]) == "validation"
    assert evaluation_split(["dev", "train", "test"]) == "test"
    assert evaluation_split(["dev", "valid"]) == "valid"
    assert evaluation_split(["train", "all"]) is None
    assert chosen_split(None, ["test", "train"], "d") == "train"
    assert chosen_split(None, ["all"], "d") == "all"
    assert chosen_split("b", ["a", "b"], "d") == "b"
    with pytest.raises(Missing, match="d has no split 'c', only a, b"):
        chosen_split("c", ["a", "b"], "d")
