"""What a folder of transformers holds, as the section of a run that fits it. Torch-free."""

import textwrap
from pathlib import Path

from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.configuration.yaml_text import dump_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import names_in
from megatron_patches.foreign.printable import printable
from megatron_patches.transformers_exchange.foreign_model import ForeignModel, read_foreign_model
from megatron_patches.transformers_exchange.same_model import minimal_section

_WIDTH = 78
"""columns of a comment's text: a terminal has 80"""
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "vocab.txt"),
)


def shown_folder(path: Path) -> str:
    """YAML to paste into a run's file: its `model:` section, with comments about what else decides the model.

    Raises:
        Missing: it, `config.json` or a file of weights is not there.
        Refused: no model of ours is what `config.json` says.
        Damaged: a file is not what its header says.
    """
    found = read_foreign_model(path)
    comments = [*_positions(found), *_tokenizer(path)]
    yaml = dump_yaml({"model": minimal_section(found.model)}, width=80)
    lines = [line for each in comments for line in textwrap.wrap(each, _WIDTH, break_on_hyphens=False)]
    return "\n".join([*(f"# {each}" for each in lines), yaml.rstrip()])


def _positions(found: ForeignModel) -> list[str]:
    many = "any number of" if found.positions is None else f"up to {found.positions:,}"
    return [f"{found.format.model_type}, {many} positions (data.sequence_length)"]


def _tokenizer(path: Path) -> list[str]:
    there = [name for name in names_in(path) if name in _TOKENIZER_FILES or name.endswith(".model")]
    try:
        identity = tokenizer_id(find_tokenizer(path), allow_invalid=True)
    except TrainyardError as error:
        return [f"no tokenizer that can be read: {printable(error)}"]
    return [f"tokenizer {identity[:12]}: {', '.join(printable(each) for each in sorted(there))}"]
