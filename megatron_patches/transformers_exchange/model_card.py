"""`README.md` of an export: what it is, what it was trained on, how it was proved, how to load it.

Names, sentences and paths in it are those of a run's owners: each is written as text, never as Markdown or YAML of its
own. Paths of this machine are left out, but for their last part.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from data_tools.data_config import DataConfig
from data_tools.sources_config import SourceConfig
from megatron_patches.artefacts.chosen import group_of, loss_of
from megatron_patches.artefacts.descent import ORIGIN
from megatron_patches.artefacts.folders import DATA_PARENTS
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.configuration.yaml_text import dump_yaml
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.markdown import markdown_code, markdown_text
from megatron_patches.models.interface.transformers_format import Task
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import Card
from megatron_patches.transformers_exchange.weight_choice import Weights

README = "README.md"
_MOST_IDS = 32
"""ids of data sets that are told; a blend may have thousands, which the checkpoint's manifest names"""
_WEIGHTS = {"stored": "as the run trained with them", "masters": "the optimizer's fp32 masters, not rounded"}
_CONTINUE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or the name of its repository
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))
```
Texts of several lengths are padded on their left; where the tokenizer names no `pad_token`, set one first:
`tokenizer.pad_token = tokenizer.eos_token`."""
_FILL = """\
```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder = "."  # this folder, or the name of its repository
model = AutoModelForMaskedLM.from_pretrained(folder, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer(f"Once upon a {tokenizer.mask_token}", return_tensors="pt")
masked = ids["input_ids"] == tokenizer.mask_token_id
print(tokenizer.decode(model(**ids).logits[masked].argmax(-1)))
```
Texts of several lengths go into one batch by `tokenizer(texts, padding=True, return_tensors="pt")`, whose
`attention_mask` hides the padding; where the tokenizer names no `pad_token`, set one first."""
_USE: Mapping[Task, str] = {"text-generation": _CONTINUE, "fill-mask": _FILL}


def model_card(
    config: RunConfig, checkpoint: Manifest, card: Card, weights: Weights, notes: Sequence[str], task: Task
) -> str:
    """The page, with front matter as the Hugging Face hub reads it."""
    facts = checkpoint.facts
    title = f"{config.name}, step {_number(facts.get('step'))}"
    front = {
        "library_name": "transformers",
        "pipeline_tag": task,
        "tags": ["trainyard", card.model_type],
    }
    parts = [
        f"---\n{dump_yaml(front)}---",
        f"# {markdown_text(title)}",
        f"Why: {markdown_text(config.why)}",
        _table("", _model(config, checkpoint, card, weights)),
        *(f"Note: {markdown_text(note)}." for note in notes),
        f"## Loading\n{_USE[task]}",
        f"## Data\n{_data(config.data, checkpoint)}",
        _table("## Training", _training(config, facts)),
        _table("## Lineage", _lineage(checkpoint)),
        f"## Proof\nAll of it is in `card.json`.\n\n{_lines(card.told())}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(heading: str, rows: Iterator[tuple[str, str]]) -> str:
    """Names are ours, values are Markdown already."""
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(([heading, ""] if heading else []) + lines)


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def _model(config: RunConfig, checkpoint: Manifest, card: Card, weights: Weights) -> Iterator[tuple[str, str]]:
    facts = checkpoint.facts
    yield "model", markdown_text(config.architecture.describe(config.model))
    yield "class", markdown_code(card.class_name)
    yield "weights", f"{card.tensors.dtype}, {_WEIGHTS[weights]}"
    yield "positions", f"{config.lengths.of('tokens'):,}"
    for name in ("step", "samples", "tokens"):
        yield name, _number(facts.get(name))
    group = group_of(facts)
    if (loss := loss_of(facts, group)) is not None:
        yield f"loss on {markdown_text(group)}", f"{loss:.4f} nats per token"
    yield "tokenizer", markdown_code(PurePath(config.data.tokenizer).name)


def _data(data: DataConfig, checkpoint: Manifest) -> str:
    rows = [
        f"| {markdown_text(each.name)} | {each.weight:g} | {markdown_code(_place(each))} |" for each in data.all_sources
    ]
    *datasets, tokenizer = _data_parents(checkpoint) or ["not on record"]
    told = [markdown_code(each) for each in datasets[:_MOST_IDS]]
    more = [f"and {len(datasets) - len(told):,} more"] if len(datasets) > len(told) else []
    return "\n".join(
        [
            "| source | weight | dataset or text |",
            "|---|---:|---|",
            *rows,
            "",
            f"Ids of datasets: {', '.join([*told, *more]) or 'none on record'}.",
            f"Id of the tokenizer: {markdown_code(tokenizer)}.",
        ]
    )


def _place(source: SourceConfig) -> str:
    """What a source reads; of a path of a machine the last part."""
    path = source.path if source.text is None else source.text.path
    return str(path) if str(path).startswith("hf:") else PurePath(str(path)).name


def _data_parents(checkpoint: Manifest) -> list[str]:
    """Ids of the datasets and, last, the tokenizer."""
    count = whole_of(checkpoint.facts.get(DATA_PARENTS))
    return list(checkpoint.parents[-count:]) if count else []


def _training(config: RunConfig, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training = config.training
    yield "objective", markdown_text(config.objective.describe())
    yield "optimizer", markdown_text(config.optimizer.name)
    yield "learning rate", f"{config.optimizer.learning_rate:g}, {markdown_text(config.schedule.name)}"
    yield "batch", f"{training.global_batch_size:,} samples of {config.data.sequence_length:,} tokens"
    yield "precision", markdown_text(training.precision)
    yield "seed", str(training.seed)
    layout = facts.get("layout")
    if isinstance(layout, dict):
        yield "layout", markdown_text(", ".join(f"{name} {value}" for name, value in layout.items()))


def _lineage(checkpoint: Manifest) -> Iterator[tuple[str, str]]:
    facts = checkpoint.facts
    yield "run", markdown_code(facts.get("run"))
    yield "checkpoint", markdown_code(checkpoint.id)
    yield "saved", markdown_text(checkpoint.created)
    yield "code", markdown_text(checkpoint.by.describe_revision())
    origin = facts.get(ORIGIN)
    if isinstance(origin, dict):
        step = f", step {_number(origin.get('step'))}" if "step" in origin else ""
        yield "began with", f"{markdown_code(origin.get('run', 'no run'))}{step}, {markdown_code(origin.get('id'))}"


def _number(value: object) -> str:
    number = whole_of(value)
    return "not on record" if number is None else f"{number:,}"
