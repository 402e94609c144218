"""GLUE's files: its own tables and rows of the hub, and what is refused of them."""

import json
from pathlib import Path

import pytest

from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats import glue
from megatron_patches.evaluation.tasks.formats.glue_files import LabelledTexts, read_glue
from megatron_patches.evaluation.tasks.formats.local_format import Source

TABLES = {
    glue.COLA: (None, "gj04\t{1}\t*\t{a}", ("1", "0")),
    glue.SST2: ("sentence\tlabel", "{a}\t{1}", ("1", "0")),
    glue.MRPC: ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{1}\t7\t8\t{a}\t{b}", ("1", "0")),
    glue.QQP: ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\t{a}\t{b}\t{1}", ("1", "0")),
    glue.STSB: (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tg\tf\t2012\t1\tn\tn\t{a}\t{b}\t{1}", ("2.500", "0.000"),
    ),
    glue.QNLI: ("index\tquestion\tsentence\tlabel", "0\t{a}\t{b}\t{1}", ("not_entailment", "entailment")),
    glue.RTE: ("index\tsentence1\tsentence2\tlabel", "0\t{a}\t{b}\t{1}", ("not_entailment", "entailment")),
    glue.WNLI: ("index\tsentence1\tsentence2\tlabel", "0\t{a}\t{b}\t{1}", ("1", "0")),
}  # fmt: skip
MNLI_TRAIN = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\tlabel1\tgold_label\n0\t1\t2\tg\t\t\t\t\tA\tB\tneutral\tcontradiction\n"
)
MNLI_DEV = MNLI_TRAIN.replace("label1\t", "label1\tlabel2\t").replace("neutral\t", "neutral\tneutral\t")


def table(format: glue.GlueFormat) -> str:
    head, row, labels = TABLES[format]
    texts = {"a": 'A "quoted', "b": "B"}
    rows = [row.replace("{1}", label).format(**texts) for label in labels]
    return "\n".join([*([] if head is None else [head]), *rows]) + "\n"


def read(format: glue.GlueFormat, folder: Path) -> LabelledTexts:
    return read_glue(format, Source(folder))


@pytest.mark.parametrize("format", TABLES, ids=lambda format: format.word)
def test_its_own_tables(format: glue.GlueFormat, tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(table(format))
    found = read(format, tmp_path)
    texts = ('A "quoted', "B")[: len(format.texts)]
    assert [row.texts for row in found.train] == [texts, texts]
    assert [row.label for row in found.asked] == ([2.5, 0.0] if format.is_score else [1.0, 0.0])
    assert [(Path(each.name).name, each.rows) for each in found.data] == [("dev.tsv", 2), ("train.tsv", 2)]


@pytest.mark.parametrize("format", glue.GLUE, ids=lambda format: format.word)
def test_rows_of_the_hub(format: glue.GlueFormat, tmp_path: Path) -> None:
    names = [f"validation_{part}" for part in format.parts] or ["validation"]
    for name in ("train", *names):
        row = {**{key: f"{key} 1" for key in format.texts}, "label": 1, "idx": 0}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    found = read(format, tmp_path)
    assert [row.part for row in found.asked] == (list(format.parts) or [None])
    assert found.train == [(tuple(f"{key} 1" for key in format.texts), 1.0, None)]


def test_mnli_has_two_parts(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(MNLI_TRAIN)
    for part in ("matched", "mismatched"):
        (tmp_path / f"dev_{part}.tsv").write_text(MNLI_DEV)
    found = read(glue.MNLI, tmp_path)
    assert [(row.texts, row.label, row.part) for row in found.asked] == [
        (("A", "B"), 2.0, "matched"), (("A", "B"), 2.0, "mismatched")
    ]  # fmt: skip


def test_lines_that_were_cut(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"{table(glue.QQP)}9\t1\t2\tA question\n")
    assert len(read(glue.QQP, tmp_path).train) == 2
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"{table(glue.RTE)}9\tA\n")
    with pytest.raises(TrainyardError, match=r"dev.tsv, line 4 has 2 columns, expected 4 or more; correct the line"):
        read(glue.RTE, tmp_path)


def test_two_files(tmp_path: Path) -> None:
    train, dev = tmp_path / "some.tsv", tmp_path / "others.tsv"
    train.write_text(table(glue.SST2))
    dev.write_text(table(glue.SST2).replace("\n", "\r\n"))
    found = read_glue(glue.SST2, Source(dev, train))
    assert [row.label for row in found.asked] == [1.0, 0.0]
    with pytest.raises(Refused, match=r"others.tsv is one file; name the folder of the task, or a .*:DEV\+TRAIN"):
        read_glue(glue.SST2, Source(dev))
    with pytest.raises(Refused, match="is a folder, whose train file is read; leave out"):
        read_glue(glue.SST2, Source(tmp_path, train))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("sentence\tlabel\nA\t2\n", "line 2: 'label' is 2, expected one of negative, positive"),
        ("sentence\tlabel\nA\t-1\n", "'label' is '-1', as in a test set without answers"),
        ("sentence\tlabel\nA\tnan\n", "'label' is nan, expected one of"),
        ("sentence\n A\n", "has no column 'label' in its first line; glue-sst2 expects 'sentence', 'label'"),
        ("sentence\tlabel\n", "dev.tsv has no rows"),
        (b"sentence\tlabel\n\xff\t1\n", "is not UTF-8"),
    ],
)
def test_what_is_refused(content: str | bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(table(glue.SST2))
    (tmp_path / "dev.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainyardError, match=said):
        read(glue.SST2, tmp_path)


def test_scores_out_of_range(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(table(glue.STSB).replace("2.500", "5.1"))
    with pytest.raises(TrainyardError, match=r"'score' is 5.1, expected a score from 0 to 5"):
        read(glue.STSB, tmp_path)


def test_files_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(table(glue.SST2))
    with pytest.raises(Missing, match=r"has no dev.tsv and no validation.tsv \(or .jsonl, .json, .parquet\)"):
        read(glue.SST2, tmp_path)
    (tmp_path / "dev.tsv").write_text(table(glue.SST2))
    (tmp_path / "validation.jsonl").write_text("{}")
    with pytest.raises(Refused, match=r"has dev.tsv and validation.jsonl, of which one is read"):
        read(glue.SST2, tmp_path)


@pytest.mark.parametrize("label", [10**400, True, None, [1], "yes", 0.5])
@pytest.mark.parametrize("format", [glue.SST2, glue.STSB], ids=lambda format: format.word)
def test_rows_whose_label_is_none(format: glue.GlueFormat, label: object, tmp_path: Path) -> None:
    row = dict.fromkeys(format.texts, "A")
    (tmp_path / "train.jsonl").write_text(json.dumps({**row, "label": 1}))
    (tmp_path / "dev.jsonl").write_text(json.dumps({**row, "label": label}))
    if format.is_score and label == 0.5:
        assert read(format, tmp_path).asked[0].label == 0.5
        return
    with pytest.raises(TrainyardError, match=r"dev.jsonl, line 1: 'label' is .*expected (one of|a score)"):
        read(format, tmp_path)
