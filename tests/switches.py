"""What each key of a run is shown to do by `test_every_switch.py`.

A case changes one key and says what must differ then. Keys of a section with several kinds carry the kind:
`optimizer.lion.beta1`. A key that is one of more than two words or numbers has a case for each of them but the one that
it is compared with, named `key=value`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.small_training import overrides

STEPS = 4


@dataclass(frozen=True)
class Trains:
    """Losses and gradient norms of four steps differ."""

    change: list[str]
    base: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Holds:
    """What the ranks hold of model and optimizer, or keep for the backward pass, differs."""

    what: str
    change: list[str]
    base: list[str] = field(default_factory=list)
    ranks: tuple[int, int] = (1, 1)
    """without and with the change"""


@dataclass(frozen=True)
class Plans:
    """The plan says `text` with the change and does not without."""

    text: str
    change: list[str]
    base: list[str] = field(default_factory=list)
    nodes: int | None = None


@dataclass(frozen=True)
class Writes:
    """A launch leaves other files or events."""

    what: Literal[
        "files", "saves", "messages", "validations", "losses", "best", "data", "log", "wandb", "profiles", "reads"
    ]
    change: list[str]
    base: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Refuses:
    """A key that has one value so far: another one is refused with `text`, which says which there are."""

    change: list[str]
    text: str


@dataclass(frozen=True)
class Resumes:
    """A plan for a run that was saved after step 3, before the change, is refused with `text` without it."""

    text: str
    change: list[str]
    base: list[str]


@dataclass(frozen=True)
class Copies:
    """What `tools/sync-to-hub --all` would bring elsewhere differs."""

    change: dict[str, object]
    base: dict[str, object] = field(default_factory=dict)


def kind(section: str, name: str, **settings: object) -> list[str]:
    """A section of another kind, in one override."""
    return [f"--{section}={json.dumps({'name': name, **settings})}"]


def of_kind(
    section: str, name: str, change: dict[str, object], beside: Sequence[str] = (), **settings: object
) -> Trains:
    """A key of a kind, changed against the kind's own settings; `beside` are overrides of other sections."""
    return Trains(kind(section, name, **{**settings, **change}), [*beside, *kind(section, name, **settings)])


RAMP = overrides(training__batch_ramp="{start: 4, increment: 2, samples: 12}", training__micro_batch_size=2)
FAST = {"learning_rate": 1e-2}
MUON = {**FAST, "weight_decay": 0.1, "rest": {"learning_rate": 1e-2}}
LINEAR = {"warmup": 2}
WSD = {"warmup": 1, "decay": 2}
SHORT = [*overrides(training__steps=2, checkpoint__every_steps=2), *kind("schedule", "constant")]
SHORT_AND_LONGER = overrides(training__steps=1, checkpoint__every_steps=1, training__extend_to=4)
EXTENDED: dict[str, dict[str, object]] = {
    "constant": {}, "inverse_square_root": {}, "linear": {"decay_end": 2}, "cosine": {"decay_end": 2, "warmup": 0},
    "warmup_stable_decay": {"decay": 1, "final_learning_rate": 5e-3},
}  # fmt: skip
PREFIX = kind("objective", "prefix_lm")
RESET = overrides(objective__reset_attention="true")
FP16 = overrides(training__precision="fp16", training__loss_scale="{initial: 1e30, hysteresis: 1}")
SMALL_SCALE = overrides(training__precision="fp16", training__loss_scale="{initial: 4.0}")
EVALUATED = overrides(evaluation="{every_steps: 2, samples: 10}")
EACH_STEP = overrides(checkpoint__every_steps=1)
LAST_ONE = [*EACH_STEP, *overrides(checkpoint__keep_last=1)]
WORSENS = overrides(evaluation="{every_steps: 1, samples: 10}", optimizer__learning_rate=3.0)
# 22 steps, from the 21st on at a rate that is far too high
SPIKES = [
    *overrides(training__steps=22, checkpoint__every_steps=1, checkpoint__keep_last=1, optimizer__learning_rate=5.0),
    *kind("schedule", "linear", warmup=21),
]
HALF: dict[str, object] = {"name": "half", "path": "$DATA/text", "range": "0:0.5"}
MORE: dict[str, object] = {"name": "more", "path": "$DATA/more"}
EVERY: dict[str, object] = {"name": "every", "path": "$DATA/[mt]*", "shards": "0:2"}
MANY_STEPS = overrides(training__steps=2000)
PAIRS = ["--data.path=$DATA/pairs"]
FILTERS: dict[str, object] = {
    "minimum_tokens": 14, "maximum_tokens": 16, "minimum_characters": 40, "maximum_punctuation": 0.05,
    "maximum_non_alphanumeric": 0.2, "maximum_upper_case": 0.1,
}  # fmt: skip
OF_WHOLE: dict[str, object] = {"minimum_tokens": 100, "maximum_tokens": 100, "minimum_characters": 150}
"""of whole documents, which are longer than windows"""


def blend(*sources: dict[str, object]) -> list[str]:
    """Sources in place of the small run's one dataset; `$DATA` is the folder of the small data."""
    return ["--data.path=null", f"--data.sources={json.dumps(sources)}"]


def cut(name: str, **settings: object) -> list[str]:
    """How documents become samples."""
    return [f"--data.samples={json.dumps({'name': name, **settings})}"]


WINDOWS, PACKS = cut("windows"), [*cut("packs"), "--data.sequence_length=256"]


def changed(step: int, *sources: dict[str, object]) -> list[str]:
    """Other sources from a step on."""
    return [f"--data.changes={json.dumps([{'from_step': step, 'sources': sources}])}"]


def validated(*groups: dict[str, object]) -> list[str]:
    """Validation on groups, at the last step."""
    return [
        "--data.split=100",
        f"--data.validation={json.dumps(groups)}",
        *overrides(evaluation=f"{{every_steps: {STEPS}, samples: 10}}"),
    ]


def of_source(key: str, value: object, **source: object) -> dict[str, object]:
    """A source with a key changed."""
    return {**HALF, **source, key: value}


RAW: dict[str, object] = {"path": "$DATA/pairs.jsonl", "key": "question"}


def with_text(where: str, **changes: object) -> list[str]:
    """A run with raw text as all that it reads, as one of its sources, from a step on, or to validate on."""
    text = {**RAW, **changes}
    source: dict[str, object] = {"name": "raw", "text": text}
    if where == "data":
        return ["--data.path=null", f"--data.text={json.dumps(text)}"]
    if where == "data.sources":
        return blend(source, MORE)
    return changed(2, source) if where == "data.changes.sources" else validated({"name": "held", "sources": [source]})


def told(where: str, text: str, change: dict[str, object], base: dict[str, object], *settings: str) -> Plans:
    """What the plan says of a text of which a key is changed."""
    return Plans(text, [*settings, *with_text(where, **{**base, **change})], [*settings, *with_text(where, **base)])


def text_cases(where: str) -> Iterator[tuple[str, Plans | Refuses]]:
    """What each key of a text does. The keys of the hub are refused for files."""
    yield "path", told(where, "gone.jsonl does not exist", {"path": "$DATA/gone.jsonl"}, {})
    yield "key", told(where, "content", {"key": "content"}, {})
    without = {"key": "content"}  # no record has it
    of_group = where == "data.validation.sources"
    missing = "has no document" if of_group else "is not known before"
    yield "max_bad", told(where, missing, {"max_bad": 100}, without)
    yield "append_eod", told(where, "append", {"append_eod": False}, {}, *RESET)
    if of_group:
        yield (
            "shuffle_documents",
            Refuses(with_text(where, shuffle_documents=7), "shuffle_documents of raw has no effect"),
        )
    else:
        yield "shuffle_documents", told(where, "shuffled 7 documents", {"shuffle_documents": 7}, {})
    for key, value in {
        "split": "train", "revision": "main", "streaming": False, "timeout_seconds": 1.0, "retries": 1
    }.items():  # fmt: skip
        refused = f"{key} of $DATA/pairs.jsonl would do nothing".replace("$DATA/", "")
        yield key, Refuses(with_text(where, path="pairs.jsonl", **{key: value}), refused)


# what a key of a source changes, beside the second source `MORE`
OF_A_SOURCE: dict[str, dict[str, object]] = {
    "name": of_source("name", "other"),
    "weight": of_source("weight", 3),
    "path": of_source("path", "$DATA/more"),
    "range": of_source("range", "0.5:1"),
    "order": of_source("order", "file"),
}
ONE_GROUP: dict[str, object] = {"name": "held", "sources": [HALF, MORE]}
PROFILED = overrides(profile="{steps: 1, after_step: 2}")
WANDB = overrides(logging__wandb="{project: one}")

CASES: dict[str, Trains | Holds | Plans | Writes | Copies | Refuses | Resumes] = {
    "name": Plans("tr900b-28K-other", ["NAME=tr900b-28K-other"]),
    "family": Plans("tr901-others", ["FAMILY=tr901-others"]),
    "why": Plans("to see it", ["--why=to see it"]),
    "init_from": Plans("there is no run tr900c-28K-other", ["--init_from=tr900c-28K-other@3"]),
    # the model
    "model.gpt.name": Refuses(overrides(model__name="gtp"), '"gtp" is not known; it is one of gpt, encoder'),
    "model.gpt.layers": Trains(overrides(model__layers=3)),
    "model.gpt.hidden_size": Trains(overrides(model__hidden_size=48)),
    "model.gpt.attention_heads": Trains(overrides(model__attention_heads=2)),
    "model.gpt.key_value_heads": Trains(overrides(model__key_value_heads=2)),
    "model.gpt.ffn_size": Trains(overrides(model__ffn_size=96)),
    "model.gpt.vocab_size": Trains(overrides(model__vocab_size=400)),
    "model.gpt.vocab_multiple": Trains(overrides(model__vocab_multiple=128 * 5)),
    "model.gpt.position_embedding.learned.name": Trains(
        overrides(model__position_embedding="learned"), overrides(model__position_embedding="none")
    ),
    "model.gpt.position_embedding.rotary.name": Trains(overrides(model__position_embedding="rotary")),
    "model.gpt.position_embedding.rotary.theta": of_kind("model.position_embedding", "rotary", {"theta": 100.0}),
    "model.gpt.position_embedding.rotary.fraction": of_kind("model.position_embedding", "rotary", {"fraction": 0.5}),
    "model.gpt.position_embedding.rotary.pairs": of_kind(
        "model.position_embedding", "rotary", {"pairs": "interleaved"}
    ),
    "model.gpt.position_embedding.alibi.name": Trains(
        overrides(model__position_embedding="alibi"), overrides(model__position_embedding="none")
    ),
    "model.gpt.position_embedding.none.name": Trains(overrides(model__position_embedding="none")),
    **{
        f"model.gpt.activation={name}": Trains(overrides(model__activation=name), overrides(model__activation=other))
        for name, other in {
            "gelu": "gelu_tanh", "relu": "gelu_tanh",
            "liglu": "reglu", "geglu": "reglu", "swiglu": "reglu", "reglu": "relu",
        }.items()
    },
    "model.gpt.norm": Trains(
        overrides(model__norm="rmsnorm", model__norm_bias="false"), overrides(model__norm_bias="false")
    ),
    "model.gpt.norm_placement": Trains(overrides(model__norm_placement="post")),
    "model.gpt.norm_epsilon": Trains(overrides(model__norm_epsilon=1e-2)),
    "model.gpt.norm_bias": Trains(overrides(model__norm_bias="false")),
    "model.gpt.embedding_norm": Trains(overrides(model__embedding_norm="true")),
    "model.gpt.query_key_norm": Trains(overrides(model__query_key_norm="true")),
    "model.gpt.parallel_residual": Trains(overrides(model__parallel_residual="true")),
    "model.gpt.attention_bias": Trains(overrides(model__attention_bias="false")),
    "model.gpt.mlp_bias": Trains(overrides(model__mlp_bias="false")),
    "model.gpt.tied_head": Trains(overrides(model__tied_head="false")),
    "model.gpt.logit_soft_cap": Trains(overrides(model__logit_soft_cap=0.1)),
    "model.gpt.hidden_dropout": Trains(overrides(model__hidden_dropout=0.1, model__embedding_dropout=0.0)),
    "model.gpt.attention_dropout": Trains(overrides(model__attention_dropout=0.1)),
    "model.gpt.embedding_dropout": Trains(overrides(model__embedding_dropout=0.1)),
    "model.gpt.init_std": Trains(overrides(model__init_std=0.03)),
    "model.gpt.init_std=small": Trains(overrides(model__init_std="small")),
    "model.gpt.init_std=megatron_530b": Trains(
        overrides(model__init_std="megatron_530b"), overrides(model__init_std="small")
    ),
    "model.gpt.init_residual_scaling": Trains(overrides(model__init_residual_scaling="false")),
    # the data
    "data.path": Plans("missing", ["--data.path=missing"]),
    **{f"data.sources.{key}": Trains(blend(source, MORE), blend(HALF, MORE)) for key, source in OF_A_SOURCE.items()},
    "data.sources.shards": Trains(blend({**EVERY, "shards": "1:"}), blend(EVERY)),
    "data.sources.max_epochs": Plans("no overlap", blend({**HALF, "max_epochs": 99}), [*MANY_STEPS, *blend(HALF)]),
    "data.changes.from_step": Trains(changed(1, MORE), [*blend(HALF), *changed(2, MORE)]),
    **{
        f"data.changes.sources.{key}": Trains(
            changed(2, {**source, "name": f"later-{source['name']}"}, MORE),
            [*blend(MORE), *changed(2, {**HALF, "name": "later-half"}, MORE)],
        )
        for key, source in OF_A_SOURCE.items()
    },
    "data.changes.sources.shards": Trains(
        changed(2, {**EVERY, "shards": "1:"}), [*blend(HALF), *changed(2, EVERY)]
    ),
    "data.changes.sources.max_epochs": Plans(
        "half", changed(2, {**MORE, "max_epochs": 99}), [*MANY_STEPS, *blend(HALF), *changed(2, MORE)]
    ),
    "data.validation.name": Writes("losses", validated({**ONE_GROUP, "name": "other"}), validated(ONE_GROUP)),
    # what a source is called decides the order of training alone: here it is in the record
    "data.validation.sources.name": Writes(
        "data", validated({**ONE_GROUP, "sources": [OF_A_SOURCE["name"], MORE]}), validated(ONE_GROUP)
    ),
    **{
        f"data.validation.sources.{key}": Writes(
            "losses", validated({**ONE_GROUP, "sources": [OF_A_SOURCE[key], MORE]}), validated(ONE_GROUP)
        )
        for key in ("weight", "path", "range")
    },
    "data.validation.sources.shards": Writes(
        "losses", validated({"name": "held", "sources": [{**EVERY, "shards": "1:"}]}),
        validated({"name": "held", "sources": [EVERY]}),
    ),
    "data.validation.sources.order": Refuses(
        validated({"name": "held", "sources": [{**HALF, "order": "file"}]}),
        "order of half has no effect: validation reads the first samples, as they lie",
    ),
    "data.validation.sources.max_epochs": Refuses(
        validated({"name": "held", "sources": [{**HALF, "max_epochs": 2}]}),
        "max_epochs of half has no effect: validation reads nothing twice",
    ),
    **{
        f"{where}.text.{key}": case
        for where in ("data", "data.sources", "data.changes.sources", "data.validation.sources")
        for key, case in text_cases(where)
    },
    "data.samples.stream.name": Trains(["--data.samples=windows"], ["--data.samples=stream"]),
    "data.samples.windows.name": Trains(WINDOWS),
    "data.samples.windows.stride": Trains(cut("windows", stride=5), WINDOWS),
    "data.samples.windows.overlap": Trains(cut("windows", overlap=0.5), WINDOWS),
    "data.samples.windows.balance_last": Trains(cut("windows", balance_last=False), WINDOWS),
    "data.samples.windows.answers_only": Trains(cut("windows", answers_only=False), [*PAIRS, *WINDOWS]),
    "data.samples.packs.name": Trains(PACKS, ["--data.sequence_length=256"]),
    "data.samples.packs.longer": Trains(cut("packs", longer="drop"), [*PACKS, "--data.sequence_length=85"]),
    "data.samples.packs.block_documents": Trains(cut("packs", block_documents=2), PACKS),
    "data.samples.packs.answers_only": Trains(cut("packs", answers_only=False), [*PAIRS, *PACKS]),
    **{
        f"data.samples.{name}.filters.{key}": Trains(cut(name, filters={key: value}), [*PAIRS, *cut(name)])
        for name, values in {"windows": FILTERS, "packs": {**FILTERS, **OF_WHOLE}}.items()
        for key, value in values.items()
    },
    "data.split_by": Trains(["--data.split_by=document_hash"]),
    "data.tokenizer": Plans("missing", ["--data.tokenizer=missing"]),
    "data.split": Trains(["--data.split=7,3"]),
    "data.sequence_length": Trains(overrides(data__sequence_length=8)),
    "data.skip_samples": Trains(["--data.skip_samples=[[0, 8]]"]),
    "data.allow_invalid": Plans("invalid data", overrides(data__allow_invalid="true")),
    "data.loader.workers": Holds("reading threads", overrides(data__loader__workers=3)),
    "data.loader.prefetch": Holds("steps read at first", overrides(data__loader__prefetch=1)),
    "data.loader.pin_memory": Plans("pin_memory true needs a GPU", overrides(data__loader__pin_memory="true")),
    "data.loader.persistent": Writes("reads", overrides(data__loader__persistent="false"), EVALUATED),
    "data.max_epochs": Plans("no overlap", overrides(data__max_epochs=99), overrides(training__steps=2000)),
    # what is asked of the model
    "objective.causal.name": Trains(kind("objective", "causal"), PREFIX),
    "objective.causal.reset_attention": Trains(RESET),
    "objective.causal.reset_positions": Trains(overrides(objective__reset_positions="true")),
    "objective.causal.loss_after_end_of_document": Trains(overrides(objective__loss_after_end_of_document="false")),
    "objective.causal.label_smoothing": Trains(overrides(objective__label_smoothing=0.1)),
    "objective.causal.z_loss": Trains(overrides(objective__z_loss=1e-2)),
    "objective.prefix_lm.name": Trains(PREFIX),
    "objective.prefix_lm.reset_attention": Trains(RESET, PREFIX),
    "objective.prefix_lm.reset_positions": Trains(overrides(objective__reset_positions="true"), PREFIX),
    "objective.prefix_lm.loss_after_end_of_document": Trains(
        overrides(objective__loss_after_end_of_document="false"), PREFIX
    ),
    "objective.prefix_lm.label_smoothing": Trains(overrides(objective__label_smoothing=0.1), PREFIX),
    "objective.prefix_lm.z_loss": Trains(overrides(objective__z_loss=1e-2), PREFIX),
    "objective.prefix_lm.loss_on_targets_only": Trains(
        overrides(objective__loss_on_targets_only="false"), PREFIX
    ),
    "objective.prefix_lm.reweight_by_position": Trains(
        overrides(objective__reweight_by_position="true"), PREFIX
    ),
    # length, batch, precision, memory
    "training.steps": Trains(overrides(training__steps=6)),  # the end of the decay moves
    "training.samples": Trains(overrides(training__steps="null", training__samples=48)),
    "training.tokens": Trains(overrides(training__steps="null", training__tokens=48 * 16)),
    "training.extend_to": Trains(overrides(training__extend_to=4), SHORT),
    "training.extend_by": Trains(overrides(training__extend_by="[1, 1]"), SHORT),
    "training.global_batch_size": Trains(overrides(training__global_batch_size=16)),
    "training.batch_ramp.start": Trains(["--training.batch_ramp.start=2"], RAMP),
    "training.batch_ramp.increment": Trains(["--training.batch_ramp.increment=4"], RAMP),
    "training.batch_ramp.samples": Trains(["--training.batch_ramp.samples=6"], RAMP),
    "training.micro_batch_size": Holds("saved bytes", overrides(training__micro_batch_size=4)),
    "training.precision=bf16": Holds("weight bytes", overrides(training__precision="bf16")),
    "training.precision=fp16": Holds(
        "loss scale", overrides(training__precision="fp16"), overrides(training__precision="bf16")
    ),
    "training.fp8": Trains(overrides(training__fp8="tensorwise"), overrides(training__precision="bf16")),
    "training.loss_scale.initial": Holds("loss scale", ["--training.loss_scale.initial=1024.0"], FP16),
    "training.loss_scale.window": Holds("loss scale", ["--training.loss_scale.window=1"], SMALL_SCALE),
    "training.loss_scale.hysteresis": Holds("loss scale", ["--training.loss_scale.hysteresis=3"], FP16),
    "training.loss_scale.minimum": Holds("loss scale", ["--training.loss_scale.minimum=5e29"], FP16),
    "training.recomputation=selective": Holds("saved bytes", overrides(training__recomputation="selective")),
    "training.recomputation=full": Holds(
        "saved bytes", overrides(training__recomputation="full"), overrides(training__recomputation="selective")
    ),
    "training.compile": Holds("compiled blocks", overrides(training__compile="true")),
    "training.compile_backend=aot_eager": Holds(
        "compiler", overrides(training__compile_backend="aot_eager"), overrides(training__compile="true")
    ),
    "training.compile_backend=eager": Holds(
        "compiler",
        overrides(training__compile_backend="eager"),
        overrides(training__compile="true", training__compile_backend="aot_eager"),
    ),
    "training.compile_dynamic": Holds(
        "compiler", overrides(training__compile_dynamic="true"), overrides(training__compile="true")
    ),
    "training.attention_kernel=flash_attn": Plans(
        "flash_attn needs a GPU", overrides(training__attention_kernel="flash_attn")
    ),
    "training.attention_kernel=flash": Trains(
        overrides(training__attention_kernel="flash"), overrides(training__attention_kernel="math")
    ),
    "training.attention_kernel=math": Trains(overrides(training__attention_kernel="math")),
    "training.attention_kernel=cudnn": Plans("cudnn needs a GPU", overrides(training__attention_kernel="cudnn")),
    "training.attention_kernel=efficient": Plans(
        "efficient needs a GPU", overrides(training__attention_kernel="efficient")
    ),
    "training.trainable": Trains(
        overrides(training__trainable="['*.bias']"), overrides(optimizer__weight_decay=0.0)
    ),
    "training.frozen": Trains(overrides(training__frozen="['embedding.*']")),
    "training.seed": Trains(overrides(training__seed=8)),
    # update rules
    "optimizer.adamw.name": Trains(kind("optimizer", "adamw", **FAST), kind("optimizer", "sgd", **FAST)),
    "optimizer.adamw.learning_rate": Trains(overrides(optimizer__learning_rate=2e-2)),
    "optimizer.adamw.weight_decay": Trains(overrides(optimizer__weight_decay=0.5)),
    "optimizer.adamw.weight_decay_by_name": Trains(overrides(optimizer__weight_decay_by_name="{'*.bias': 0.5}")),
    "optimizer.adamw.gradient_clip": of_kind("optimizer", "adamw", {"gradient_clip": 1e-9}, **FAST),
    "optimizer.adamw.beta1": Trains(overrides(optimizer__beta1=0.5)),
    "optimizer.adamw.beta2": Trains(overrides(optimizer__beta2=0.5)),
    "optimizer.adamw.epsilon": Trains(overrides(optimizer__epsilon=1e-2)),
    "optimizer.sgd.name": Trains(kind("optimizer", "sgd", **FAST)),
    "optimizer.sgd.momentum": of_kind("optimizer", "sgd", {"momentum": 0.9}, **FAST),
    "optimizer.adafactor.name": Trains(kind("optimizer", "adafactor", **FAST)),
    "optimizer.adafactor.decay_exponent": of_kind("optimizer", "adafactor", {"decay_exponent": 0.5}, **FAST),
    "optimizer.adafactor.update_clip": of_kind("optimizer", "adafactor", {"update_clip": 0.5}, **FAST),
    "optimizer.adafactor.scale_by_parameter": of_kind("optimizer", "adafactor", {"scale_by_parameter": False}, **FAST),
    "optimizer.adafactor.epsilon": of_kind("optimizer", "adafactor", {"epsilon": 1e-2}, **FAST),
    "optimizer.adafactor.least_scale": of_kind("optimizer", "adafactor", {"least_scale": 0.5}, **FAST),
    "optimizer.lion.name": Trains(kind("optimizer", "lion", **FAST)),
    "optimizer.lion.beta1": of_kind("optimizer", "lion", {"beta1": 0.1}, **FAST),
    "optimizer.lion.beta2": of_kind("optimizer", "lion", {"beta2": 0.1}, **FAST),
    "optimizer.muon.name": Trains(kind("optimizer", "muon", **MUON)),
    "optimizer.muon.momentum": of_kind("optimizer", "muon", {"momentum": 0.5}, **MUON),
    "optimizer.muon.nesterov": of_kind("optimizer", "muon", {"nesterov": False}, **MUON),
    "optimizer.muon.newton_schulz_steps": of_kind("optimizer", "muon", {"newton_schulz_steps": 1}, **MUON),
    "optimizer.muon.update_scale": of_kind("optimizer", "muon", {"update_scale": "rms"}, **MUON),
    **{
        f"optimizer.muon.rest.{key}": of_kind("optimizer", "muon", {"rest": {**FAST, key: value}}, **MUON)
        for key, value in {"learning_rate": 2e-2, "beta1": 0.5, "beta2": 0.5, "epsilon": 1e-2}.items()
    },
    **{
        f"optimizer.{name}.{key}": of_kind("optimizer", name, {key: value}, **(MUON if name == "muon" else FAST))
        for name in ("sgd", "adafactor", "lion", "muon")
        for key, value in {
            "learning_rate": 2e-2,
            "weight_decay": 0.5,
            "weight_decay_by_name": {"*.bias": 0.5},
            "gradient_clip": 1e-9,
        }.items()
    },
    # it goes by signs: a clip matters where it brings gradients of different steps to one size
    "optimizer.lion.gradient_clip": of_kind(
        "optimizer", "lion", {"gradient_clip": 0.05}, gradient_clip=0.0, learning_rate=0.1, beta1=0.5
    ),
    # learning rates
    **{
        f"schedule.{name}.{key}": of_kind("schedule", name, change, **settings)
        for name, settings in {
            "constant": LINEAR, "inverse_square_root": LINEAR, "linear": LINEAR, "cosine": LINEAR,
            "warmup_stable_decay": WSD,
        }.items()
        for key, change in {
            "unit=samples": {"unit": "samples"},
            "unit=tokens": {"unit": "tokens"},
            "warmup": {"warmup": 3 - settings["warmup"]},
        }.items()
    },
    **{
        f"schedule.{name}.decay_end": of_kind("schedule", name, {"decay_end": 3}, **settings)
        for name, settings in {"linear": LINEAR, "cosine": LINEAR, "warmup_stable_decay": WSD}.items()
    },
    **{
        f"schedule.{name}.final_learning_rate": of_kind("schedule", name, {"final_learning_rate": 9e-3}, **settings)
        for name, settings in {
            "inverse_square_root": LINEAR, "linear": LINEAR, "cosine": LINEAR, "warmup_stable_decay": WSD,
        }.items()
    },
    **{
        f"schedule.{name}.extensions.shape={shape}": of_kind(
            "schedule", name, {"extensions": [{"shape": shape}]}, SHORT_AND_LONGER, **settings
        )
        for name, settings in EXTENDED.items()
        for shape in ("linear", "square_root", "constant")
    },
    **{
        f"schedule.{name}.extensions.final_learning_rate": of_kind(
            "schedule", name, {"extensions": [{"final_learning_rate": 2e-3}]}, SHORT_AND_LONGER, **settings
        )
        for name, settings in EXTENDED.items()
    },
    "schedule.constant.name": Trains(kind("schedule", "constant")),
    "schedule.inverse_square_root.name": Trains(kind("schedule", "inverse_square_root")),
    "schedule.inverse_square_root.timescale": of_kind("schedule", "inverse_square_root", {"timescale": 2}),
    "schedule.linear.name": Trains(kind("schedule", "linear")),
    "schedule.cosine.name": Trains(kind("schedule", "cosine"), kind("schedule", "linear")),
    "schedule.warmup_stable_decay.name": Trains(
        kind("schedule", "warmup_stable_decay", **WSD), kind("schedule", "linear", **LINEAR)
    ),
    "schedule.warmup_stable_decay.decay": of_kind("schedule", "warmup_stable_decay", {"decay": 1}, **WSD),
    **{
        f"schedule.warmup_stable_decay.shape={shape}": of_kind(
            "schedule", "warmup_stable_decay", {"shape": shape}, warmup=0, decay=3
        )
        for shape in ("cosine", "square_root")
    },
    # the layout
    "parallel.tensor": Holds("weight bytes", overrides(parallel__tensor=2), ranks=(1, 2)),
    "parallel.sequence_parallel": Holds(
        "saved bytes", overrides(parallel__sequence_parallel="true"), overrides(parallel__tensor=2), ranks=(2, 2)
    ),
    "parallel.overlap_reduction": Holds(
        "early messages",
        overrides(parallel__overlap_reduction="true"),
        overrides(parallel__zero_stage=1, training__micro_batch_size=4),
        ranks=(2, 2),
    ),
    "parallel.pipeline": Holds("parameters", overrides(parallel__pipeline=2), ranks=(1, 2)),
    "parallel.pipeline_partition=parameters": Holds(
        "parameters",
        overrides(parallel__pipeline_partition="parameters"),
        overrides(parallel__pipeline=2, model__tied_head="false", model__layers=3),
        ranks=(2, 2),
    ),
    "parallel.pipeline_partition=transformer|embedding": Holds(
        "parameters",
        overrides(parallel__pipeline_partition="transformer|embedding"),
        overrides(parallel__pipeline=3, model__layers=4),
        ranks=(3, 3),
    ),
    **{
        f"parallel.zero_stage={stage}": Holds(
            what,
            overrides(parallel__zero_stage=stage),
            overrides(parallel__zero_stage=stage - 1, training__micro_batch_size=2),
            ranks=(2, 2),
        )
        for stage, what in {1: "optimizer bytes", 2: "gradient bytes", 3: "weight bytes"}.items()
    },
    "parallel.processes_per_node": Plans(
        "4 processes", overrides(parallel__processes_per_node=4, training__micro_batch_size=2),
        overrides(parallel__processes_per_node=2), nodes=1
    ),
    "parallel.local_processes": Plans(
        "4 processes", overrides(parallel__local_processes=4, training__micro_batch_size=2)
    ),
    # what a launch leaves behind
    "checkpoint.every_steps": Writes("files", overrides(checkpoint__every_steps=2)),
    "checkpoint.ephemeral_every_steps": Writes("saves", overrides(checkpoint__ephemeral_every_steps=3)),
    "checkpoint.weights_every_steps": Writes("files", overrides(checkpoint__weights_every_steps=3)),
    "checkpoint.keep_last": Writes("files", overrides(checkpoint__keep_last=2), EACH_STEP),
    "checkpoint.keep_every_steps": Writes("files", overrides(checkpoint__keep_every_steps=2), LAST_ONE),
    "checkpoint.keep_best": Writes("files", overrides(checkpoint__keep_best=2), [*LAST_ONE, *WORSENS]),
    "checkpoint.best_by": Writes(
        "best", overrides(checkpoint__best_by="more"), validated({**HALF, "name": "half"}, {**MORE, "name": "more"})
    ),
    "checkpoint.pin_spikes_above": Writes("files", overrides(checkpoint__pin_spikes_above=1.01), SPIKES),
    "checkpoint.allow_from_scratch": Plans("may begin", overrides(checkpoint__allow_from_scratch="true")),
    "checkpoint.allow_rate_jump_at": Resumes(
        "would jump", overrides(checkpoint__allow_rate_jump_at=3), overrides(optimizer__learning_rate=3e-2)
    ),
    "checkpoint.asynchronous": Writes("messages", overrides(checkpoint__asynchronous="false")),
    "logging.every_steps": Writes("log", overrides(logging__every_steps=2)),
    "logging.wandb.project": Writes("wandb", overrides(logging__wandb="{project: two}"), WANDB),
    "logging.wandb.group": Writes("wandb", overrides(logging__wandb="{project: one, group: some}"), WANDB),
    "logging.wandb.mode": Writes("wandb", overrides(logging__wandb="{project: one, mode: online}"), WANDB),
    "profile.steps": Writes("profiles", overrides(profile__steps=2), PROFILED),
    "profile.after_step": Writes("profiles", overrides(profile__after_step=0), PROFILED),
    "storage.locations.to": Copies({"to": "file:///other"}),
    "storage.locations.what": Copies({"what": ["checkpoints", "logs"]}),
    "storage.locations.full_every": Copies({"full_every": 20}),
    "storage.locations.weights_every": Copies({"weights_every": 10}, {"full_every": 20}),
    "storage.locations.pinned": Copies({"pinned": False}, {"full_every": 20}),
    "evaluation.every_steps": Writes("validations", overrides(evaluation="{every_steps: 1, samples: 10}"), EVALUATED),
    "evaluation.samples": Writes("validations", overrides(evaluation="{every_steps: 2, samples: 12}"), EVALUATED),
}  # fmt: skip
BASE = overrides(
    model__layers=2, training__steps=STEPS, training__micro_batch_size=8, parallel__zero_stage=0,
    checkpoint__every_steps=4, evaluation="null", optimizer__gradient_clip=0.0,
)  # fmt: skip
