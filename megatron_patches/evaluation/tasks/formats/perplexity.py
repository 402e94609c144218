"""Texts whose tokens a model predicts: one file as one document, or a row for each."""

from pathlib import Path

from data_tools.reading.documents import TEXT, form_of
from data_tools.reading.entries import read_documents
from data_tools.reading.files.sources import parts_of
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat, Questions, ReadSource, Source
from megatron_patches.evaluation.tasks.formats.rows import data_file, read_rows, text_in
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.printable import printable

_AGGREGATIONS = {
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
}


def read_texts(path: Path) -> tuple[list[str], DataFile]:
    """The texts of a file, and what a result says of it.

    Raises:
        TrainyardError: it is missing, damaged, or holds no text.
    """
    if is_folder(path):
        raise Refused(f"{printable(path)} is a folder, where a file is expected; name one of its files")
    if form_of(path.name) != TEXT:
        file = read_rows(path, ("text",))
        return [text_in(row, "text") for row in file.rows], file.data
    (part,) = parts_of([path]).parts
    ((text,),) = read_documents(part, ("text",))
    if not text.strip():
        raise Damaged(f"{printable(path)} has no text; copy it again, or name another file")
    for _ in part.blocks(hashed=True):
        pass  # hashed while it is read
    return [text], data_file(path, part.content().sha256, 1)


def _read(source: Source) -> ReadSource:
    assert source.path is not None, "a format with files"
    texts, data = read_texts(source.path)
    return ReadSource(Questions([{"text": text} for text in texts]), (data,))


PERPLEXITY = LocalFormat(
    "perplexity", "1.0", "FILE", "text, a document a row; or a .txt, which is one document",
    "as lm-eval scores wikitext, with the text as it stands", '{"text": "It was a dark night."}',
    ("perplexity", *_AGGREGATIONS),
    {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [
            {"metric": name, "aggregation": aggregation, "higher_is_better": False}
            for name, aggregation in _AGGREGATIONS.items()
        ],
    },
    _read,
)  # fmt: skip
