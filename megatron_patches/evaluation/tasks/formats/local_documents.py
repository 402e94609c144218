"""Documents of a task that was written down for lm-eval's command line: JSON lines in the folder beside this file.

lm-eval calls it as the YAML files say; this file is copied beside them, and imports nothing else of ours.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = "documents"


def load(documents: str, **_: object) -> dict[str, Any]:
    """The documents of a task by split, as lm-eval's `custom_dataset`; nothing is copied into a cache.

    Args:
        documents: beginning of the files' names, as in `hellaswag.test.jsonl`.
    """
    from datasets import Dataset

    folder = Path(__file__).parent / FOLDER
    found = {path.name.removesuffix(".jsonl").rpartition("."): path for path in sorted(folder.glob("*.jsonl"))}
    return {
        split: Dataset.from_list([json.loads(line) for line in path.read_bytes().splitlines()])
        for (name, _, split), path in found.items()
        if name == documents
    }
