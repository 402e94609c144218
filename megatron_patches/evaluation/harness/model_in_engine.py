"""A checkpoint's model in the run's own layers, as lm-eval asks one: no export, and on as many ranks as hold it.

Text becomes tokens by the tokenizer that the checkpoint's export would have, and texts are cut as lm-eval cuts them for
an export, so that both give the same numbers up to the rounding of two implementations.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer_files
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.generation.generator import Prompt
from megatron_patches.generation.loaded_model import LoadedModel
from megatron_patches.generation.sampling import Sampling
from megatron_patches.generation.scorer import ScoreRequest
from megatron_patches.transformers_exchange.tokenizer_files import exported_tokenizer, write_tokenizer_files

_BATCH_TOKENS = 4096
_WRITTEN_AT_ONCE = 8
_SETTINGS = frozenset(("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k", "num_beams"))
"""of generation, which a greedy text obeys: what draws is refused, and the rest has no effect on it"""
Pair = tuple[tuple[str, str] | None, list[int], list[int]]
"""what is asked, ids of the context and of the ending"""


class EngineModel(TemplateLM):
    """What lm-eval calls.

    Args:
        loaded: by `load_model`, with a `length` where more is to be seen than in training.
        length: most ids that the model sees at once; None means as many as it was loaded for.

    Raises:
        Refused: it was loaded for fewer; or no tokenizer of transformers gives its ids.
    """

    def __init__(self, loaded: LoadedModel, length: int | None) -> None:
        super().__init__()
        if length is not None and length > loaded.window:
            raise Refused(f"length {length:,}: the model was loaded for {loaded.window:,}; load it for that length")
        self._loaded = loaded
        self.max_length = length or loaded.window
        self.max_gen_toks = DEFAULT_MAX_GEN_TOKS
        self.batch_size_per_gpu: int | None = None
        """texts that are read at once; None means as many as have 4,096 ids, and 8 that are written"""
        self.tokenizer = _tokenizer_of_export(loaded)

    @property
    def precision(self) -> str:
        """In which the model computes."""
        return self._loaded.config.training.precision

    @property
    def eot_token_id(self) -> int:
        """What ends a document.

        Raises:
            Refused: the tokenizer has no such token.
        """
        end: int | None = self.tokenizer.eos_token_id
        if end is None:
            raise Refused(
                f"tokenizer {self._loaded.tokenizer.name} has no token that ends documents, and this task needs it"
            )
        return end

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a text without context."""
        begin: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text; the tokenizer of an export adds none by itself."""
        chosen = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer.encode(string, **chosen)
        return ids

    def _loglikelihood_tokens(self, requests: Sequence[Pair], **_: Any) -> list[tuple[float, bool]]:
        if not all(0 < len(ending) <= self.max_length for _, _, ending in requests):
            raise AssertionError("what is to be predicted")  # as HFLM does, for whoever asks either of them
        scorer = self._loaded.scorer((self.batch_size_per_gpu or 0) * self.max_length or _BATCH_TOKENS)
        scores = scorer.score([self._request(context, ending) for _, context, ending in requests])
        return [(each.log_probability, each.is_greedy) for each in scores]

    def _request(self, context: list[int], ending: list[int]) -> ScoreRequest:
        """Cut from the left, so that all but the last id can be seen."""
        return ScoreRequest(context[-(self.max_length + 1 - len(ending)) :], ending)

    def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
        """Log-likelihoods of whole texts, in nats: every token predicted once, in the windows of HFLM."""
        texts = [list(self._windows(*each.args)) for each in requests]
        scores = iter(self._loglikelihood_tokens([(None, *window) for windows in texts for window in windows]))
        return [sum(next(scores)[0] for _ in windows) for windows in texts]

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return map(make_disjoint_window, windows)

    def generate_until(self, requests: Any, **_: Any) -> list[str]:
        """The likeliest text after each context, up to the first of its stop strings.

        Raises:
            Refused: a request asks for anything but the likeliest text.
        """
        asked = [_Asked(number, self, *each.args) for number, each in enumerate(requests)]
        written = [""] * len(asked)
        for batch in _batches(asked, self.batch_size_per_gpu or _WRITTEN_AT_ONCE):
            for each, text in zip(batch, self._write(batch), strict=True):
                written[each.number] = text
        return written

    def _write(self, batch: Sequence["_Asked"]) -> Iterator[str]:
        ids: list[list[int]] = [[] for _ in batch]

        def hear(row: int, chosen: int) -> bool:
            ids[row].append(chosen)
            recent = self.tokenizer.decode(ids[row][-batch[row].looked_back :])
            return not any(stop in recent for stop in batch[row].stops)

        prompts = [Prompt(each.ids, seed=0) for each in batch]
        self._loaded.generator().generate(prompts, batch[0].tokens, Sampling(temperature=0), hear)
        for each, found in zip(batch, ids, strict=True):
            text = self.tokenizer.decode(found, skip_special_tokens=True)
            yield postprocess_generated_text(text, each.stops, think_end_token=None)


class _Asked:
    """A text that is to be continued."""

    def __init__(self, number: int, model: EngineModel, context: str, settings: dict[str, Any]) -> None:
        wanted = normalize_gen_kwargs(settings, model.max_gen_toks)
        if wanted.get("do_sample") or wanted.get("num_beams", 1) != 1 or wanted.keys() - _SETTINGS:
            raise Refused(
                f"the task asks for texts by {shortened(settings, 120)}, and the engine writes the likeliest ones; "
                "evaluate through the export"
            )
        self.number = number
        self.tokens: int = wanted["max_gen_toks"]
        self.stops = handle_stop_sequences(wanted["until"], eos=model.tokenizer.decode([model.eot_token_id]))
        self.looked_back = 2 + max(len(model.tok_encode(stop, add_special_tokens=False)) for stop in self.stops)
        """ids in which a stop string that has just been completed is found, whatever its tokens; HFLM's rule"""
        self.ids = model.tok_encode(context)[-(model.max_length - self.tokens) :] or [model.prefix_token_id]


def _batches(asked: Sequence[_Asked], size: int) -> Iterator[list[_Asked]]:
    """Of similar length, and of as many tokens to write."""
    batch: list[_Asked] = []
    for each in sorted(asked, key=lambda each: (each.tokens, -len(each.ids), each.number)):
        if batch and (len(batch) == size or each.tokens != batch[0].tokens):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def _tokenizer_of_export(loaded: LoadedModel) -> Any:
    from transformers import AutoTokenizer

    files = own_tokenizer_files(loaded.checkpoint, loaded.manifest)
    written = exported_tokenizer(files, loaded.tokenizer, loaded.window, loaded.config.model.vocabulary)
    with tempfile.TemporaryDirectory(prefix="trainyard-tokenizer-") as folder:
        write_tokenizer_files(written, Path(folder))
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
