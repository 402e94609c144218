"""`tools/evals tasks`: what it lists, and what it writes."""

import shlex
from pathlib import Path

import pytest

from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.tasks.formats.all_formats import LOCAL_FORMATS
from tests.megatron_patches.evaluation.tasks.made_up import gsm8k_rows, hellaswag_rows, lines, mmlu_rows
from tools.commands.evals.tasks import tasks_command


def test_each_format_is_listed_with_keys_metrics_and_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    tasks_command()
    shown = capsys.readouterr()
    assert "hellaswag:FILE\n    keys     activity_label, ctx_a" in shown.out
    assert "mmlu:FILE|FOLDER\n" in shown.out
    assert "    metrics  perplexity, word_perplexity, byte_perplexity, bits_per_byte\n" in shown.out
    for format in LOCAL_FORMATS.values():
        assert f"    example  {format.example}\n" in shown.out
    assert "validation or validation:GROUP\n" in shown.out
    assert "FILE+EXAMPLES" in shown.out
    assert shown.err == ""


def test_the_example_of_each_format_is_one(tmp_path: Path) -> None:
    for format in LOCAL_FORMATS.values():
        if format.source is not None:
            file = tmp_path / f"{format.word}.jsonl"
            file.write_text(f"{format.example}\n")
            tasks_command([f"{format.word}:{file}"], write=tmp_path / f"asked-{format.word}")
            assert list((tmp_path / f"asked-{format.word}" / "documents").iterdir())


def test_a_terminal_gets_lines_of_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tasks_command()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_tasks_are_written_with_the_command_that_asks_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(Path("h.jsonl"), hellaswag_rows())
    lines(Path("m.jsonl"), mmlu_rows())
    lines(Path("g.jsonl"), gsm8k_rows())
    tasks = ["hellaswag:h.jsonl,mmlu:m.jsonl", "chat=gsm8k-chat:g.jsonl"]
    tasks_command(tasks, write=Path("asked it"), limit=2, length=64)
    shown = capsys.readouterr()
    assert shlex.split(shown.out) == [
        "lm_eval", "--model", "hf", "--model_args", "pretrained=EXPORT,max_length=64", "--include_path", "asked it",
        "--tasks", "hellaswag,mmlu,chat", "--limit", "2",
    ]  # fmt: skip
    assert shown.err == "lm-eval has no acc_norm_token, which tools/evals adds\n"
    assert sorted(each.name for each in Path("asked it").iterdir()) == [
        "chat.yaml", "documents", "hellaswag.yaml", "local_documents.py", "mmlu.yaml", "mmlu_anatomy.yaml",
        "mmlu_law.yaml", "number_answers.py",
    ]  # fmt: skip


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_patches.evaluation.tasks.spec.harness_names", lambda: {"arc_easy": tmp_path})
    folder = tmp_path / "asked"
    for tasks, message in (
        ([], "no task is named"),
        (["validation"], "validation is computed by the engine"),
        (["arc_easy"], "arc_easy is a task of the harness"),
    ):
        with pytest.raises(Refused, match=message):
            tasks_command(tasks, write=folder)
    with pytest.raises(Missing, match=r"none\.jsonl does not exist"):
        tasks_command(["gsm8k:none.jsonl"], write=folder)
    assert not folder.exists()
    for asked in ({"tasks": ["arithmetic"]}, {"limit": 3}):
        with pytest.raises(Refused, match="add --write FOLDER"):
            tasks_command(**asked)  # type: ignore[arg-type]
