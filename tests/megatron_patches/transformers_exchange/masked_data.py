"""The data of small runs with a tokenizer that has a mask token and the other roles of encoders."""

import json
import shutil
from pathlib import Path

from data_tools.datasets.preprocessing.preprocess import PreprocessRequest, preprocess
from tests.small_training import SmallData

ROLES = {"mask_token": "[MASK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
FIRST = 384
"""id of the mask token; the others follow it"""
VOCABULARY = FIRST + len(ROLES)


def masked_data(folder: Path, data: SmallData) -> SmallData:
    """The same documents under a tokenizer with four tokens more."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    described = json.loads((data.folder / "tokenizer" / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    described["added_tokens"] += [
        {"id": FIRST + number, "content": token, **flags, "special": True}
        for number, token in enumerate(ROLES.values())
    ]
    (tokenizer / "tokenizer.json").write_text(json.dumps(described))
    settings = json.loads((data.folder / "tokenizer" / "tokenizer_config.json").read_text())
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings | ROLES))
    shutil.copytree(data.folder / "documents", folder / "documents")
    inputs = sorted((folder / "documents").iterdir())
    preprocess(PreprocessRequest(inputs=inputs, output=folder / "text", tokenizer=tokenizer, append_eod=True))
    return SmallData(folder)
