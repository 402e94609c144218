"""Sentences with endings: read as published, refused where a row is wrong."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.hellaswag import HELLASWAG, HELLASWAG_PLAIN
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat, Questions, ReadSource, Source
from tests.megatron_patches.evaluation.tasks.made_up import ENDINGS, hellaswag_rows, lines


def read(path: Path, format: LocalFormat = HELLASWAG) -> ReadSource:
    return format.read(Source(path))


def documents(path: Path, format: LocalFormat = HELLASWAG) -> list[dict[str, Any]]:
    questions = read(path, format).questions
    assert isinstance(questions, Questions)
    return [dict(each) for each in questions.documents]


def test_texts_are_cleaned_as_lm_eval_does_it(tmp_path: Path) -> None:
    first, second, _ = documents(lines(tmp_path / "h.jsonl", hellaswag_rows()))
    assert first == {
        "query": "Making tea 0:  How to fill kettle 0. Open it.",
        "choices": ["boils it.", "eats it.", "reads it.", "sells it."],
        "gold": 0,
        "cluster": "Making tea 0",
    }
    assert second["query"].endswith("Open it. She then")
    assert second["gold"] == 1


def test_the_plain_form_leaves_texts_as_they_stand(tmp_path: Path) -> None:
    rows = hellaswag_rows(2)
    assert documents(lines(tmp_path / "h.jsonl", rows), HELLASWAG_PLAIN)[1] == {
        "query": "She fills kettle 1 then", "choices": ENDINGS, "gold": 1, "cluster": "Making tea 0",
    }  # fmt: skip
    without = [{key: value for key, value in row.items() if key != "ctx"} for row in rows]
    queries = [each["query"] for each in documents(lines(tmp_path / "w.jsonl", without), HELLASWAG_PLAIN)]
    assert queries == [rows[0]["ctx_a"], f"{rows[1]['ctx_a']} she THEN"]


def test_items_of_one_source_are_a_cluster(tmp_path: Path) -> None:
    rows = [{**row, "source_id": "video~7"} for row in hellaswag_rows()]
    assert {each["cluster"] for each in documents(lines(tmp_path / "h.jsonl", rows))} == {"video~7"}
    bare = [{key: row[key] for key in ("ctx", "endings", "label")} for row in rows]
    assert {each["cluster"] for each in documents(lines(tmp_path / "b.jsonl", bare), HELLASWAG_PLAIN)} == {None}


def test_a_guess_is_right_once_in_as_many_as_there_are_endings(tmp_path: Path) -> None:
    rows = [{**hellaswag_rows(1)[0], "endings": ENDINGS[:count]} for count in (2, 4)]
    chance = read(lines(tmp_path / "h.jsonl", rows)).chance
    assert chance == {"acc": 0.375, "acc_norm": 0.375, "acc_norm_token": 0.375}


def test_lists_packed_files_and_columns_give_the_same(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{**row, "label": str(row["label"]), "source_id": "a"} for row in hellaswag_rows()]
    expected = documents(lines(tmp_path / "h.jsonl", rows))
    (tmp_path / "h.json").write_text(json.dumps(rows))
    with gzip.open(tmp_path / "h.jsonl.gz", "wt") as file:
        file.write((tmp_path / "h.jsonl").read_text())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "h.parquet")
    for name in ("h.json", "h.jsonl.gz", "h.parquet"):
        assert documents(tmp_path / name) == expected, name
    (data,) = read(tmp_path / "h.parquet").data
    assert (data.name, data.rows) == (str(tmp_path / "h.parquet"), 3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"label": 4}, "'label' is 4, expected 0 to 3; correct the row"),
    ({"label": -1}, "'label' is -1, expected 0 to 3"),
    ({"label": True}, "'label' is True, expected 0 to 3"),
    ({"label": "one"}, "'label' is one, expected 0 to 3"),
    ({"label": ""}, "'label' is empty, as in a test set without answers, expected 0 to 3; take a file with answers"),
    ({"endings": "boils it."}, "'endings' is a string, expected a list of texts"),
    ({"endings": ["boils it."]}, "'endings' has 1 texts, expected at least 2"),
    ({"endings": ["a", "b", "", "d"]}, "'endings[2]' is empty"),
    ({"endings": ["a", "b", 3, "d"]}, "'endings[2]' is a number, expected a text"),
    ({"endings": ["a", "[b]", "c", "d"]}, "an ending is empty without its marks in brackets"),
    ({"ctx_a": None}, "'ctx_a' is null, expected a text"),
    ({"ctx_a": "\ud800"}, "'ctx_a' has half of a surrogate pair"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_row_is_told_by_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = hellaswag_rows(2)
    path = lines(tmp_path / "h.jsonl", [rows[0], {**rows[1], **change}])
    with pytest.raises(TrainyardError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert message in str(raised.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "label"} for row in hellaswag_rows(1)]
    with pytest.raises(
        TrainyardError, match=r"line 1: no key 'label', only activity_label, .* see `tools/evals tasks`"
    ):
        read(lines(tmp_path / "h.jsonl", rows))
    with pytest.raises(TrainyardError, match=r"no key 'ctx', and no 'ctx_b' in its place"):
        read(lines(tmp_path / "p.jsonl", [{"ctx_a": "a", "endings": ENDINGS, "label": 0}]), HELLASWAG_PLAIN)


def test_files_that_cannot_be_items_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "h.txt").write_text("text")
    (tmp_path / "h.csv").write_text("text")
    (tmp_path / "broken.jsonl").write_text('{"ctx": 1}\n{"ctx"')
    for name, error, message in (
        ("empty.jsonl", Damaged, "is empty"),
        ("blank.jsonl", Damaged, "has no rows"),
        ("h.txt", Refused, "is one text, where rows are expected"),
        ("h.csv", TrainyardError, "is of an unknown format"),
        ("none.jsonl", Missing, "does not exist"),
        ("", Refused, "is a folder, where a file is expected"),
        ("broken.jsonl", TrainyardError, "line 1: no key"),
    ):
        with pytest.raises(error, match=message):
            read(tmp_path / name)
