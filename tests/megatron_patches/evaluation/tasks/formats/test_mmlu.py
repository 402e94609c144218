"""Questions of many subjects, from a file of rows or from the folder as published."""

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.local_format import Questions, ReadSource, Source
from megatron_patches.evaluation.tasks.formats.mmlu import MMLU
from tests.megatron_patches.evaluation.tasks.made_up import lines, mmlu_folder, mmlu_rows


def by_subject(read: ReadSource) -> dict[str, Questions]:
    assert not isinstance(read.questions, Questions)
    return dict(read.questions)


def test_rows_are_divided_by_subject_in_the_order_of_names(tmp_path: Path) -> None:
    read = MMLU.read(Source(lines(tmp_path / "m.jsonl", mmlu_rows())))
    subjects = by_subject(read)
    assert list(subjects) == ["anatomy", "law"]
    first, second = subjects["anatomy"].documents
    assert first == {
        "query": "What of anatomy 0?\nA. anatomy w\nB. anatomy x\nC. anatomy y\nD. anatomy z\nAnswer:",
        "gold": 0, "part": "anatomy", "cluster": "anatomy",
    }  # fmt: skip
    assert second["gold"] == 1
    assert read.chance == {"acc": 0.25}
    assert [each.rows for each in read.data] == [4]


def test_the_published_folder_has_solved_items_of_each_subject(tmp_path: Path) -> None:
    read = MMLU.read(Source(mmlu_folder(tmp_path, {"test": 3, "dev": 2, "val": 1})))
    algebra = by_subject(read)["abstract_algebra"]
    assert algebra.description == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
    )
    assert [len(algebra.documents), len(algebra.examples)] == [3, 2]
    assert algebra.documents[2]["query"] == 'abstract_algebra test 2, is it?\nA. w\nB. x\nC. y "z"\nD. z\nAnswer:'
    assert [algebra.documents[2]["gold"], algebra.examples[0]["query"][:22]] == [2, "abstract_algebra dev 0"]
    assert [(each.name, each.rows) for each in read.data] == [(f"{tmp_path}/test", 6), (f"{tmp_path}/dev", 4)]


def test_the_hash_of_a_folder_changes_with_a_file_and_with_its_name(tmp_path: Path) -> None:
    def hashed(name: str) -> Any:
        return MMLU.read(Source(tmp_path / name)).data[0].sha256

    for name in ("a", "b", "c"):
        mmlu_folder(tmp_path / name, {"test": 1})
    (tmp_path / "b/test/anatomy_test.csv").write_text("other,w,x,y,z,A\n")
    (tmp_path / "c/test/anatomy_test.csv").rename(tmp_path / "c/test/law_test.csv")
    assert len({hashed("a"), hashed("b"), hashed("c")}) == 3


def test_the_validation_questions_serve_where_there_is_no_test(tmp_path: Path) -> None:
    read = MMLU.read(Source(mmlu_folder(tmp_path, {"val": 2})))
    assert "abstract_algebra val 0" in by_subject(read)["abstract_algebra"].documents[0]["query"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": "abstract algebra"}, "'abstract algebra' cannot name a subject, as abstract_algebra can"),
        ({"subject": "../law"}, "cannot name a subject"),
        ({"choices": ["a", "b", "c"]}, "'choices' has 3 texts, expected 4"),
        ({"choices": ["a", "b", "c", "d", "e"]}, "'choices' has 5 texts, expected 4"),
        ({"answer": 4}, "'answer' is 4, expected 0 to 3 or A to D"),
        ({"answer": "E"}, "'answer' is E, expected 0 to 3 or A to D"),
        ({"answer": "AB"}, "'answer' is AB, expected 0 to 3 or A to D"),
        ({"question": " "}, "'question' is empty"),
    ],
)
def test_a_wrong_row_is_told_by_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = mmlu_rows()
    path = lines(tmp_path / "m.jsonl", [*rows[:3], {**rows[3], **change}])
    with pytest.raises(TrainyardError) as raised:
        MMLU.read(Source(path))
    assert str(raised.value).startswith(f"{path}, line 4: ")
    assert message in str(raised.value)


def test_a_wrong_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"has no test/SUBJECT_test\.csv"):
        MMLU.read(Source(tmp_path))
    folder = mmlu_folder(tmp_path / "m", {"test": 2})
    file = folder / "test" / "anatomy_test.csv"
    file.write_text("one,A,B,C,D,A\ntwo,A,B,C,A\n")
    with pytest.raises(TrainyardError, match=r"anatomy_test\.csv, line 2 has 5 columns, expected 6"):
        MMLU.read(Source(folder))
    file.write_bytes(b"\xff,A,B,C,D,A\n")
    with pytest.raises(Damaged, match="is not UTF-8"):
        MMLU.read(Source(folder))
    file.write_text("")
    with pytest.raises(Damaged, match="is empty"):
        MMLU.read(Source(folder))
    with pytest.raises(Refused, match=r"has solved items in dev/; leave out \+"):
        MMLU.read(Source(folder, tmp_path / "x.jsonl"))
