"""The format of a run's model, and the words where there is none."""

from pathlib import Path

import pytest

from megatron_patches.errors import Refused
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.transformers_exchange.choice import choose_format, format_of
from tests.small_run import write_run

BLOOM = ["--model.position_embedding=alibi", "--model.embedding_norm=true"]
LLAMA = [
    "--model.position_embedding=rotary", "--model.norm=rmsnorm", "--model.norm_bias=false", "--model.activation=swiglu",
]  # fmt: skip
NEOX = ["--model.position_embedding=rotary"]


def small(tmp_path: Path, *overrides: str) -> RunConfig:
    """The small run with overrides."""
    return load_run(write_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml"), list(overrides))


@pytest.mark.parametrize(
    ("overrides", "chosen"), [([], "gpt2"), (BLOOM, "bloom"), (LLAMA, "llama"), (NEOX, "gpt_neox")]
)
def test_the_first_that_takes_the_model_is_chosen(tmp_path: Path, overrides: list[str], chosen: str) -> None:
    config = small(tmp_path, *overrides)
    assert choose_format(config).model_type == chosen
    assert choose_format(config, wanted=chosen).model_type == chosen


def test_a_refusal_names_for_each_format_what_is_in_the_way_the_nearest_first(tmp_path: Path) -> None:
    with pytest.raises(Refused) as error:
        choose_format(small(tmp_path, "--model.query_key_norm=true", "--model.ffn_size=48", *BLOOM))
    lines = str(error.value).splitlines()
    assert max(map(len, lines)) <= 79
    formats = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert formats[0] == "bloom" and sorted(formats) == ["bloom", "gpt2", "gpt_neox", "llama"]
    first = lines[lines.index("bloom:") + 1 : lines.index(f"{formats[1]}:")]
    assert first == [
        "  model.ffn_size 48: it takes 4 * hidden_size (64)", "  model.query_key_norm true: it takes false",
    ]  # fmt: skip


def test_a_format_that_is_asked_for_is_looked_at_alone(tmp_path: Path) -> None:
    with pytest.raises(Refused) as error:
        choose_format(small(tmp_path), wanted="bloom")
    assert "model.position_embedding learned: it takes alibi" in str(error.value)
    assert "llama" not in str(error.value)
    with pytest.raises(Refused, match="format mistral: this run's architecture can become gpt2, bloom, llama, gpt_n"):
        choose_format(small(tmp_path), wanted="mistral")


def test_a_model_that_reads_prefixes_is_no_other(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="objective"):
        choose_format(small(tmp_path, "--objective.name=prefix_lm"))


def test_a_model_type_has_an_architecture() -> None:
    for model_type in ("gpt2", "bloom", "llama", "gpt_neox"):
        name, form = format_of(model_type)
        assert (name, form.model_type) == ("gpt", model_type)
    with pytest.raises(
        Refused, match=r"model_type mis\\x1btral is of no architecture here.*gpt2, bloom, llama, gpt_neox, eurobert"
    ):
        format_of("mis\x1btral")
