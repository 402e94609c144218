"""Cards of all families, and what a card finds where an exporter is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron_patches.transformers_exchange.card.card import LARGEST_DIFFERENCE, Card
from tests.megatron_patches.transformers_exchange.card.exports import (
    card_of,
    export,
    format_of_run,
    random_source,
    run_of,
    their_config,
    their_tensors,
    write_folder,
)
from tests.megatron_patches.transformers_exchange.card.faults import FAULTS, Faulty
from tests.ranks import run_on_ranks

CONTINUE = ["gpt2-no-biases", "bloom", "llama", "gpt_neox"]
FILL = ["eurobert", "eurobert-biases"]
FAMILIES = CONTINUE + FILL
PRECISIONS = ["fp32", "bf16"]


def prove_all(folder: Path) -> dict[str, Any]:
    """Cards of all families, with all of a model in memory and one block at a time; what each fault is caught by."""
    cards: dict[str, Any] = {}
    for model in FAMILIES:
        for precision in PRECISIONS:
            config = run_of(model, precision)
            given = (random_source(config), format_of_run(config, model), config)
            path = export(folder / f"{model}-{precision}", *given)
            cards[f"{model} {precision}"] = [card_of(path, *given, by_block=each) for each in (False, True)]
    cards |= {name: caught(folder / name.replace(" ", "-"), name) for name in FAULTS}
    return cards | {"padding": padding_is_seen(folder / "padding")}


def padding_is_seen(folder: Path) -> tuple[str, str] | None:
    """What catches a model of theirs that takes no notice of an attention mask."""
    from transformers.models.eurobert import modeling_eurobert

    from megatron_patches.transformers_exchange.card.card import NotEqual

    config = run_of("eurobert")
    given = (random_source(config), format_of_run(config, "eurobert"), config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_eurobert, "create_bidirectional_mask", lambda **ignored: None)
        try:
            card_of(export(folder, *given), *given)
        except NotEqual as error:
            return error.check, str(error)
    return None


def caught(folder: Path, name: str) -> tuple[str, str] | None:
    """The check that catches a fault, and what it says."""
    from megatron_patches.transformers_exchange.card.card import NotEqual

    config = run_of(FAULTS[name].model)
    given = (random_source(config), Faulty(format_of_run(config, FAULTS[name].model), FAULTS[name]), config)
    try:
        card_of(export(folder, *given), *given)
    except NotEqual as error:
        return error.check, str(error)
    return None


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_on_ranks(prove_all, 1, tmp_path_factory.mktemp("exports"))[0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", FAMILIES)
def test_a_family_is_the_same_model_there(proved: dict[str, Any], model: str, precision: str) -> None:
    card: Card = proved[f"{model} {precision}"][0]
    assert card.tensors.dtype == {"fp32": "F32", "bf16": "BF16"}[precision]
    assert (card.tensors.filled > 0) == (model in ("gpt2-no-biases", "eurobert-biases"))
    assert card.logits.positions == card.logits.equal_argmax == 520
    assert card.logits.largest_difference < LARGEST_DIFFERENCE
    assert card.logits.largest_logit > 5
    if model in CONTINUE:
        assert (card.masked, card.padding) == (None, None)
        assert card.greedy is not None
        assert (card.greedy.prompt, card.greedy.tokens, card.greedy.equal) == (8, 32, 32)
        return
    assert card.greedy is None and card.masked is not None and card.padding is not None
    assert (card.masked.tokens, card.masked.equal) == (13 * 6, 13 * 6)
    assert (card.padding.texts, card.padding.tokens, card.padding.sides) == (3, 32 + 16 + 7, ("right", "left"))
    assert card.padding.largest_difference < LARGEST_DIFFERENCE


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", FAMILIES)
def test_one_block_at_a_time_is_the_same(proved: dict[str, Any], model: str, precision: str) -> None:
    whole, by_block = proved[f"{model} {precision}"]
    assert (whole.by_block, by_block.by_block) == (False, True)
    another = whole.model_copy(update={"by_block": True, "date": by_block.date})
    assert by_block == another


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_exporter_is_caught(proved: dict[str, Any], name: str) -> None:
    assert proved[name] is not None
    check, message = proved[name]
    assert check == FAULTS[name].check, message
    assert FAULTS[name].says in message


@pytest.mark.slow
def test_padding_that_is_seen_is_caught(proved: dict[str, Any]) -> None:
    assert proved["padding"] is not None
    check, message = proved["padding"]
    assert check == "padding"
    assert "text 2 in a batch that is padded on its right differ by" in message


def most_held(folder: Path, model: str) -> dict[str, tuple[int, int, int]]:
    """Numbers in the parameters of both models, one block at a time: before a pass, at most in it, and after it.

    The pass makes logits in parts, which must be those of all places at once.
    """
    import torch
    from torch import nn
    from torch.nn.modules.module import register_module_forward_hook

    from megatron_patches.transformers_exchange.card.folder import open_folder
    from megatron_patches.transformers_exchange.card.ours import our_model
    from megatron_patches.transformers_exchange.card.theirs import their_model

    config = run_of(model)
    source, form = random_source(config), format_of_run(config, model)
    opened = open_folder(export(folder, source, form, config))
    found = {}
    with our_model(source, config, by_block=True) as ours, their_model(opened, form, by_block=True) as theirs:
        for name, each in (("ours", ours), ("theirs", theirs)):
            whole: nn.Module = each._model

            def held(*ignored: object, whole: nn.Module = whole) -> int:
                return sum(parameter.numel() for parameter in whole.parameters())

            seen = [held()]
            hook = register_module_forward_hook(lambda *ignored, seen=seen, held=held: seen.append(held()))
            ids = torch.arange(16).view(2, 8)
            parts = list(each.logits(ids, torch.arange(8).split(3)))
            hook.remove()
            assert [part.shape[1] for part in parts] == [3, 3, 2]
            torch.testing.assert_close(torch.cat(parts, 1), next(each.logits(ids, [torch.arange(8)])))
            found[name] = (seen[0], max(seen), held())
    return found


@pytest.mark.slow
def test_one_block_at_a_time_is_all_that_is_held(tmp_path: Path) -> None:
    found = run_on_ranks(most_held, 1, tmp_path / "x", "gpt2")[0]
    block = 4 * 48 * 48 + 2 * 48 * 80 + 9 * 48 + 80  # matrices, then norms and biases
    assert found == {"ours": (0, block, 0), "theirs": (0, 3 * 48 * 48 + 3 * 48, 0)}


def prove_damaged(folder: Path) -> dict[str, tuple[str, str]]:
    """What is said of folders of which one thing is another than what was exported."""
    import torch

    from megatron_patches.errors import TrainyardError

    config = run_of("gpt2-no-biases")
    source, form = random_source(config), format_of_run(config, "gpt2")
    tensors, settings = their_tensors(source, form, config), their_config(form, config)
    table, bias = tensors["transformer.wte.weight"], tensors["transformer.ln_f.bias"]
    bits = table.clone()
    bits.view(torch.int32)[3, 7] ^= 1
    cases = {
        "bit": (tensors | {"transformer.wte.weight": bits}, settings),
        "filled": (tensors | {"transformer.ln_f.bias": bias + 1e-30}, settings),
        "type": (tensors | {"transformer.ln_f.bias": bias.half()}, settings),
        "shape": (tensors | {"transformer.ln_f.bias": bias[1:]}, settings),
        "left over": (tensors | {"transformer.x": bias.clone()}, settings),
        "missing": ({name: each for name, each in tensors.items() if each is not bias}, settings),
        "class": (tensors, {**settings, "model_type": "openai-gpt"}),
        "value": (tensors, settings | {"n_head": 5}),
        "ends": (tensors, settings | {"eos_token_id": list(range(61))}),
    }
    found = {}
    for name, (held, said) in cases.items():
        path = write_folder(folder / name, held, said)
        try:
            found[name] = ("", str(card_of(path, source, form, config).greedy))
        except TrainyardError as error:
            found[name] = (getattr(error, "check", ""), str(error))
    return found


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    return run_on_ranks(prove_damaged, 1, tmp_path_factory.mktemp("damaged"))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("bit", "tensors", "differs in 1 of 2,928 numbers, first at [3, 7]"),
        ("filled", "tensors", "transformer.ln_f.bias differs in 48 of 48 numbers"),
        ("type", "tensors", "is of type F16, not F32"),
        ("shape", "tensors", "is of shape (47,), not (48,)"),
        ("left over", "tensors", "transformer.x is left over"),
        ("missing", "tensors", "transformer.ln_f.bias is missing"),
        ("class", "loading", "OpenAIGPTLMHeadModel of the folder, not a GPT2LMHeadModel"),
        ("value", "loading", "transformers does not take the folder"),
        ("ends", "", "tokens=32"),  # tokens that end a text do not end the comparison
    ],
)
def test_what_was_changed_is_named(damaged: dict[str, tuple[str, str]], name: str, check: str, says: str) -> None:
    assert damaged[name][0] == check, damaged[name]
    assert says in damaged[name][1]
