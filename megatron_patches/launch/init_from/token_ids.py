"""Which token ids mean the same to a run and to the one whose weights it begins from. Torch-free."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_tools.encoding.same_ids import ids_that_are_new
from data_tools.run_data import RunData
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import find_tokenizer, load_tokenizer, tokenizer_id
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.starting_point import TOKENIZER_VOCABULARY, Vocabularies
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.run.config import RunConfig


def vocabularies_of(folder: Path, manifest: Manifest, config: RunConfig, data: RunData) -> Vocabularies:
    """The ids that were in use in a checkpoint's run, and those of the run that begins from it.

    Raises:
        Missing: its tokenizer is another one, and is not to be found.
        Refused: ids of it stand for other tokens in the run's.
    """
    identity = manifest.facts.get("identity")
    saved: Mapping[str, Any] = identity if isinstance(identity, dict) else {}
    theirs, known = saved.get("tokenizer"), whole_of(saved.get("model.vocab_size"))
    used = data.tokenizer_vocabulary
    fresh: tuple[int, ...] = ()
    if theirs != data.tokenizer_id:
        before = _their_tokenizer(folder, theirs if isinstance(theirs, str) else "")
        now = load_tokenizer(CHECKOUT / config.data.tokenizer, config.data.allow_invalid)
        fresh = ids_that_are_new(before, now)
        used = before.vocab_size
    used = whole_of(manifest.facts.get(TOKENIZER_VOCABULARY)) or used
    model = config.model.vocabulary
    return Vocabularies(min(used, known or used), min(data.tokenizer_vocabulary, model), fresh)


def _their_tokenizer(folder: Path, wanted: str) -> Tokenizer:
    places = [*_configured(folder), *_catalogued(wanted)]
    for place in places:
        try:
            if tokenizer_id(find_tokenizer(place), allow_invalid=True) == wanted:
                return load_tokenizer(place, allow_invalid=True)
        except TrainyardError:  # moved, or changed since: the next place may have it
            continue
    looked = ", ".join(printable(each) for each in places) or "its config.yaml names none"
    raise Missing(
        f"it was trained with another tokenizer ({shortened(wanted, 12) or 'not on record'}), which is not to be "
        f"found ({looked}), so whether ids mean the same here is not known. Bring that tokenizer's folder back to "
        "where it was, or below the folder of data, or train with the same one"
    )


def _configured(folder: Path) -> Iterator[Path]:
    section = read_yaml(folder / CONFIG).get("data")
    named = section.get("tokenizer") if isinstance(section, dict) else None
    if isinstance(named, str):
        yield CHECKOUT / named


def _catalogued(wanted: str) -> Iterator[Path]:
    with open_catalogue() as catalogue:
        for each in catalogue.artefacts("id = ? AND kind = 'tokenizer'", [wanted]):
            yield each.folder
