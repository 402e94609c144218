"""Made-up files in the formats that people have."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ENDINGS = ["boils it.", "eats [step] it.", "reads  it.", "sells it."]


def lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def hellaswag_rows(count: int = 3) -> list[dict[str, Any]]:
    """Labels are numbers and digits in turn, as two publications have them."""
    return [
        {
            "activity_label": f"Making tea {number // 2}",
            "ctx_a": f" [header] How to fill kettle {number} [title] Open  it.",
            "ctx_b": "she THEN" if number % 2 else "",
            "ctx": f"She fills kettle {number} then",
            "endings": ENDINGS,
            "label": str(number % 4) if number % 2 else number % 4,
        }
        for number in range(count)
    ]


def mmlu_rows(subjects: Iterable[str] = ("law", "anatomy"), count: int = 2) -> list[dict[str, Any]]:
    """So many questions of each subject, of one subject after the other in turn."""
    return [
        {
            "question": f" What of {subject} {number}? ",
            "subject": subject,
            "choices": [f"{subject} {letter}" for letter in "wxyz"],
            "answer": "ABCD"[number % 4] if number % 2 else number % 4,
        }
        for number in range(count)
        for subject in subjects
    ]


def mmlu_folder(folder: Path, splits: Mapping[str, int]) -> Path:
    """A folder as published, with so many questions of two subjects in each split."""
    for split, count in splits.items():
        (folder / split).mkdir(parents=True)
        for subject in ("anatomy", "abstract_algebra"):
            rows = [
                f'"{subject} {split} {number}, is it?",w,x,"y ""z""",z,{"ABCD"[number % 4]}' for number in range(count)
            ]
            (folder / split / f"{subject}_{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


def gsm8k_rows(count: int = 3) -> list[dict[str, Any]]:
    """Answers with their numbers in thousands."""
    return [
        {"question": f"Ann has {number} pens. How many?", "answer": f"She has <<{number}>>.\n#### {number + 1:,}000"}
        for number in range(count)
    ]
