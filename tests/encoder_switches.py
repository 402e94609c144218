"""What each key of an encoder and of masked LM does, written as the cases of `tests/switches.py`."""

from tests.small_training import ENCODER, overrides
from tests.switches import PACKS, WINDOWS, Holds, Refuses, Trains, cut, of_kind

LAYERNORM = overrides(model__norm="layernorm")
POSITIONS = "model.position_embedding"


def changed(base: list[str] | None = None, **settings: object) -> Trains:
    """Keys of an encoder's section that are changed."""
    return Trains(overrides(**{f"model__{key}": value for key, value in settings.items()}), [*ENCODER, *(base or [])])


def placed(kind: str, **settings: object) -> Trains:
    """A key of a kind of positions."""
    return of_kind(POSITIONS, kind, settings, beside=ENCODER)


ENCODER_CASES: dict[str, Trains | Holds | Refuses] = {
    "model.encoder.name": Trains(ENCODER),
    "data.samples.windows.wrapped": Trains(cut("windows", wrapped=True), [*ENCODER, *WINDOWS]),
    "data.samples.packs.wrapped": Trains(cut("packs", wrapped=True), [*ENCODER, *PACKS]),
    "model.encoder.layers": changed(layers=3),
    "model.encoder.hidden_size": changed(hidden_size=48),
    "model.encoder.attention_heads": changed(attention_heads=2),
    "model.encoder.key_value_heads": changed(key_value_heads=2),
    "model.encoder.ffn_size": changed(ffn_size=144),
    "model.encoder.gated_width": changed(gated_width="as_given"),
    "model.encoder.vocab_size": changed(vocab_size=400),
    "model.encoder.vocab_multiple": changed(vocab_multiple=640),
    "model.encoder.position_embedding.learned.name": changed(position_embedding="learned"),
    "model.encoder.position_embedding.rotary.name": changed(
        overrides(model__position_embedding="alibi"), position_embedding="rotary"
    ),
    "model.encoder.position_embedding.rotary.theta": placed("rotary", theta=100.0),
    "model.encoder.position_embedding.rotary.fraction": placed("rotary", fraction=0.5),
    "model.encoder.position_embedding.rotary.pairs": placed("rotary", pairs="interleaved"),
    "model.encoder.position_embedding.alibi.name": changed(position_embedding="alibi"),
    "model.encoder.position_embedding.none.name": Refuses(
        [*ENCODER, *overrides(model__position_embedding="none")], "leaves an encoder without the order of its tokens"
    ),
    **{
        f"model.encoder.activation={name}": changed(overrides(model__activation=other), activation=name)
        for name, other in {
            "gelu": "gelu_tanh", "relu": "gelu_tanh", "gelu_tanh": "relu", "liglu": "reglu", "geglu": "reglu",
            "swiglu": "reglu",
        }.items()
    },
    "model.encoder.norm": changed(norm="layernorm"),
    "model.encoder.norm_placement": changed(norm_placement="post"),
    "model.encoder.norm_epsilon": changed(norm_epsilon=1e-2),
    "model.encoder.norm_bias": changed(LAYERNORM, norm_bias="true"),
    "model.encoder.embedding_norm": changed(embedding_norm="true"),
    "model.encoder.query_key_norm": changed(query_key_norm="true"),
    "model.encoder.parallel_residual": changed(parallel_residual="true"),
    "model.encoder.attention_bias": changed(attention_bias="true"),
    "model.encoder.mlp_bias": changed(mlp_bias="true"),
    "model.encoder.tied_head": changed(tied_head="false"),
    "model.encoder.decoder_bias": changed(decoder_bias="true"),
    "model.encoder.logit_soft_cap": changed(logit_soft_cap=0.1),
    "model.encoder.hidden_dropout": changed(hidden_dropout=0.1, embedding_dropout=0.0),
    "model.encoder.attention_dropout": changed(attention_dropout=0.1),
    "model.encoder.embedding_dropout": changed(embedding_dropout=0.1),
    "model.encoder.init_std": changed(init_std=0.03),
    "model.encoder.init_std=small": changed(init_std="small"),
    "model.encoder.init_std=megatron_530b": changed(overrides(model__init_std="small"), init_std="megatron_530b"),
    "model.encoder.init_residual_scaling": changed(init_residual_scaling="false"),
    "objective.masked_lm.name": Refuses(
        ["--objective=masked_lm"], "objective masked_lm does not go with model gpt: its tokens see keys by the pattern"
    ),
    **{
        f"objective.masked_lm.probability.{key}": Trains(
            overrides(**{f"objective__probability__{key}": value}),
            [*ENCODER, "--objective.probability={start: 0.4, end: 0.2, samples: 30}"],
        )
        for key, value in {"start": 0.5, "end": 0.1, "samples": 20}.items()
    },
    "objective.masked_lm.mask_all": Trains(overrides(objective__mask_all="true"), ENCODER),
    "objective.masked_lm.masked_logits_only": Holds(
        "saved bytes", overrides(objective__masked_logits_only="false"), ENCODER
    ),
    "objective.masked_lm.reset_attention": Trains(overrides(objective__reset_attention="false"), ENCODER),
}  # fmt: skip
"""by key; every case is a run of the small encoder"""
