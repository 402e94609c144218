"""Which token ids mean the same to a run and to the one whose weights it begins from. Torch-free."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_tools.run_data import RunData
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer, load_tokenizer_files
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.starting_point import TOKENIZER_VOCABULARY, Vocabularies
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer_files
from megatron_patches.checkpoint.tokenizer_files.same_ids import ids_that_are_new
from megatron_patches.errors import Missing
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.run.config import RunConfig


def vocabularies_of(folder: Path, manifest: Manifest, config: RunConfig, data: RunData) -> Vocabularies:
    """The ids that were in use in a checkpoint's run, and those of the run that begins from it.

    Raises:
        Damaged: its tokenizer is another one, and the files that travelled with it are not what they were.
        Missing: its tokenizer is another one, did not travel with it, and is not to be found.
        Refused: ids of it stand for other tokens in the run's.
    """
    identity = manifest.facts.get("identity")
    saved: Mapping[str, Any] = identity if isinstance(identity, dict) else {}
    theirs, known = saved.get("tokenizer"), whole_of(saved.get("model.vocab_size"))
    used = data.tokenizer_vocabulary
    fresh: tuple[int, ...] = ()
    if theirs != data.tokenizer_id:
        before = _their_tokenizer(folder, manifest)
        now = load_tokenizer(CHECKOUT / config.data.tokenizer, config.data.allow_invalid)
        fresh = ids_that_are_new(before, now)
        used = before.vocab_size
    used = whole_of(manifest.facts.get(TOKENIZER_VOCABULARY)) or used
    model = config.model.vocabulary
    return Vocabularies(min(used, known or used), min(data.tokenizer_vocabulary, model), fresh)


def _their_tokenizer(folder: Path, manifest: Manifest) -> Tokenizer:
    try:
        return load_tokenizer_files(own_tokenizer_files(folder, manifest), allow_invalid=True)
    except Missing as error:
        raise Missing(
            f"{error}, or train with the same one: until then whether ids mean the same here is not known"
        ) from None
