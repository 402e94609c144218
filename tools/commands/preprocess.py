"""`tools/preprocess`: text to a dataset."""

import os
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from tools.command_line import run_app
from tools.megatron_flags import OF_PREPROCESS
from tools.preprocess_asked import Asked

if TYPE_CHECKING:  # numpy and pydantic would double the time that --help takes
    from data_tools.datasets.preprocessing.request import PreprocessRequest
    from data_tools.records.record import RecordForm, TemplateName

MOST_TOKENS = 1 << 62


class ChatTemplate(StrEnum):
    """What is written around messages."""

    PLAIN = "plain"
    TOKENIZER = "tokenizer"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    inputs: list[str] = typer.Argument(
        None,
        metavar="INPUT",
        help="Files, or folders of them, in this order: .jsonl, .json (lines or one array), .ndjson, .txt, each also "
        "with .gz .zst .bz2 .xz, and .parquet and .arrow. Links are followed; what a folder holds beside them is "
        "named. hf:NAME is a dataset of the Hugging Face hub, hf:FOLDER one on disk. Example: hf:owner/name",
    ),
    output: Path | None = typer.Option(
        None,
        metavar="PREFIX",
        help="Prefix of the dataset: PREFIX.bin, .idx, .manifest.json; with several keys PREFIX_KEY for each.",
    ),
    tokenizer: Path | None = typer.Option(
        None, metavar="PATH", help="Folder with a tokenizer.json, or a SentencePiece .model."
    ),
    run: Path | None = typer.Option(
        None,
        metavar="YAML",
        help="YAML of the run that will read the dataset. It gives the tokenizer, the output (data.path) or, for raw "
        "text (data.text), inputs and key; documents then end with the end-of-document token. Example: --run "
        "train/tr3-1B3-baseline/tr3m-1B3-pile.yaml",
    ),
    source: str | None = typer.Option(
        None, metavar="NAME", help="Which of the run's sources is made, where it has several. Example: --source code"
    ),
    json_keys: str | None = typer.Option(
        None,
        metavar="KEYS",
        help="Keys (or columns) that hold the texts, separated by commas; text where none is given.",
    ),
    pairs: str | None = typer.Option(
        None,
        metavar="KEYS",
        help="Keys of inputs and of targets, which are their answers, in place of texts; the index of the dataset says"
        " which tokens are answers. Example: --pairs question,answer",
    ),
    chat: str | None = typer.Option(
        None,
        metavar="KEY",
        help='Key of a list of messages {"role": "user", "content": "..."}, of which those of the role assistant are '
        "answers, in place of texts. Example: --chat messages",
    ),
    chat_template: ChatTemplate | None = typer.Option(
        None,
        metavar="TEMPLATE",
        help="What is written around messages. plain: 'User: ...', an empty line, 'Assistant: ...'. tokenizer: the "
        "template in the tokenizer's folder. Chats have the plain one where none is named, pairs none. Example: "
        "--pairs question,answer --chat-template plain",
    ),
    pair_separator: str | None = typer.Option(
        None,
        metavar="TEXT",
        help="What the answers of pairs without a template begin with; a space where none is given. Example: "
        "--pair-separator $'\\n'",
    ),
    append_eod: bool = typer.Option(
        False,
        "--append-eod",
        help="End each document with the end-of-document token. Answers of pairs and plain chats always end with it.",
    ),
    tokens: str | None = typer.Option(
        None,
        "--target-tokens",
        "--tokens",
        metavar="N",
        help="Stop after the document that brings the dataset to this many tokens (with several keys, the first key's "
        "dataset). Sources with fewer tokens are an error. Example: --target-tokens 10e9",
    ),
    shard_tokens: str | None = typer.Option(
        None,
        metavar="N",
        help="Datasets PREFIX-00000, PREFIX-00001 and so on, each ending with the document that brings it to this many"
        " tokens; a run reads them in order as data.path: 'PREFIX-*'. Example: --shard-tokens 1e9",
    ),
    shuffle: bool = typer.Option(
        False,
        "--shuffle",
        help="Put documents in a random order: those that --target-tokens keeps, before --shard-tokens cuts. Memory "
        "does not grow with them; the disk holds the tokens twice meanwhile. Example: --shuffle --seed 7",
    ),
    seed: int | None = typer.Option(
        None,
        metavar="N",
        help="Seed of --shuffle and --synthetic-arithmetic, 0 if not given. The same seed gives the same order and the"
        " same made-up documents.",
    ),
    shard: str | None = typer.Option(
        None,
        metavar="N/M",
        help="Read one part of the inputs, NUMBER/HOW MANY, counted from 0, into PREFIX-00003-of-00008: for jobs that "
        "share the work (slurm/preprocess-array.slurm); their datasets need no merge. Example: --shard 3/8",
    ),
    max_bad: int = typer.Option(
        0,
        metavar="N",
        min=0,
        help="Bad entries that may be left out, such as lines that are no JSON; one more is an error that names file "
        "and line. Example: --max-bad 100",
    ),
    max_length: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Tokens that a document keeps, its end-of-document token included; longer ones are cut and counted. "
        "Example: --max-length 32768",
    ),
    parse_special: bool = typer.Option(
        False,
        "--parse-special",
        help="Let text that spells a control token, such as <|endoftext|>, become that token. Only for the same bytes "
        "as Megatron-LM writes: whoever wrote the text then decides where documents end.",
    ),
    inject: Literal["weak", "strict"] | None = typer.Option(
        None,
        metavar="weak|strict",
        help="Let a product of two digits become one token of the multiplication table: with weak 3*4, 3 × 4 and 3 x 4"
        " = 12, with strict those with their product alone. Needs a tokenizer of tools/tokenizer extend "
        "--multiplication. Example: --inject strict",
    ),
    synthetic_arithmetic: int = typer.Option(
        0,
        metavar="N",
        min=0,
        help="Made-up documents of multiplication facts to spread evenly over the others; the sources are read twice "
        "then. Example: --synthetic-arithmetic 20000",
    ),
    split: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Split of an hf: dataset, by default the one for training. Example: --split validation",
    ),
    revision: str | None = typer.Option(
        None,
        metavar="NAME",
        help="Commit, branch or tag of a dataset on the hub, by default the newest. Example: --revision v1.2",
    ),
    no_streaming: bool = typer.Option(
        False, "--no-streaming", help="Copy the files of a dataset of the hub first; else they are read as needed."
    ),
    max_document_mib: int = typer.Option(
        256, metavar="MIB", min=1, help="Longest document that is read, in MiB of the file."
    ),
    library: Literal["auto", "tokenizers", "gigatoken", "fastokens"] = typer.Option(
        "auto",
        metavar="LIBRARY",
        help="Which library tokenizes: tokenizers, gigatoken, fastokens, or auto, the fastest that gives the "
        "tokenizer's own ids, as a sample of each file shows. The ids do not depend on it. Example: --library "
        "tokenizers",
    ),
    workers: int | None = typer.Option(
        None,
        metavar="N",
        min=1,
        help="Processes that tokenize, by default one for each core. The result does not depend on it. Example: "
        "--workers 8",
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", help="Replace a dataset of the same name, and drop unfinished work of another request."
    ),
    allow_invalid: bool = typer.Option(False, "--allow-invalid", help="The tokenizer may be marked invalid."),
) -> None:
    """Tokenize text into a dataset that runs read. Documents keep the order of the files and of their lines.

    Killed or interrupted, it keeps what is done in PREFIX.unfinished: the same command goes on there, and ends with
    the same bytes. Once it is finished, the same command says so and does nothing.

    Example: tools/preprocess data/raw/web --output data/web --tokenizer data/tokenizer --append-eod

    Example: tools/preprocess hf:owner/name --output data/pairs --tokenizer data/tokenizer --pairs question,answer
    """
    from data_tools.datasets.preprocessing.request import PreprocessRequest
    from data_tools.domain_tokens.request import ArithmeticRequest

    given = Asked(
        tuple(inputs or ()), output, tokenizer, json_keys, append_eod, max_bad, split, revision, not no_streaming
    )
    asked = _of_run(given, run, source, pairs is not None or chat is not None)
    asked.check_hub_options()
    request = PreprocessRequest(
        inputs=asked.inputs,
        output=asked.needed_output(),
        tokenizer=asked.needed_tokenizer(),
        json_keys=[key.strip() for key in (asked.json_keys or "text").split(",")],
        records=_record_form(json_keys, pairs, chat, chat_template, pair_separator),
        append_eod=asked.append_eod,
        tokens=None if tokens is None else _number_of_tokens("--target-tokens (--tokens)", tokens),
        parse_special=parse_special,
        largest_document=max_document_mib << 20,
        workers=workers or len(os.sched_getaffinity(0)),
        overwrite=overwrite,
        allow_invalid=allow_invalid,
        arithmetic=ArithmeticRequest(inject, synthetic_arithmetic, seed),
        max_bad=asked.max_bad,
        max_length=max_length,
        shuffle_seed=(seed or 0) if shuffle else None,
        shard_tokens=None if shard_tokens is None else _number_of_tokens("--shard-tokens", shard_tokens),
        share=None if shard is None else _share(shard),
        split=asked.split,
        revision=asked.revision,
        streaming=asked.streaming,
        library=None if library == "auto" else library,
    )
    _make(request)


def _make(request: "PreprocessRequest") -> None:
    from data_tools.datasets.preprocessing.preprocess import preprocess
    from tools.preprocess_progress import metered
    from tools.preprocess_summary import print_summary

    with metered() as meter:
        summary = preprocess(request, meter.show, meter.tell)
    print_summary(summary)


def _of_run(given: Asked, run: Path | None, source: str | None, records: bool) -> Asked:
    if run is None:
        if source is not None:
            raise TrainyardError(f"--source {source} is one of a run's; add --run RUN")
        return given
    from tools.run_files.preprocess_run import completed

    return completed(given, run, source, records)


def _share(text: str) -> tuple[int, int]:
    """Reads 3/8.

    Raises:
        TrainyardError: it is no number of how many.
    """
    number, mark, shards = text.partition("/")
    if mark and number.isascii() and number.isdigit() and shards.isascii() and shards.isdigit():
        return int(number), int(shards)
    raise TrainyardError(
        f"--shard '{shortened(text)}' is no part of the inputs; write NUMBER/HOW MANY, counted from 0, such as 3/8"
    )


def _record_form(
    json_keys: str | None, pairs: str | None, chat: str | None, template: ChatTemplate | None, separator: str | None
) -> "RecordForm | None":
    """Which records are read; None: texts.

    Raises:
        TrainyardError: options that exclude each other, or of which one would do nothing.
    """
    from data_tools.records.record import RecordForm

    given = {"--json-keys": json_keys, "--pairs": pairs, "--chat": chat}
    if len(named := [option for option, value in given.items() if value is not None]) > 1:
        raise TrainyardError(
            f"{' and '.join(named)} exclude each other: a dataset holds texts, pairs or chats; give one"
        )
    if template is not None and pairs is None and chat is None:
        raise TrainyardError("--chat-template is for --chat and --pairs; leave it out, or add one of them")
    if separator is not None and (pairs is None or template is not None):
        raise TrainyardError("--pair-separator is for --pairs without --chat-template; leave it out")
    names: dict[ChatTemplate, TemplateName] = {ChatTemplate.PLAIN: "plain", ChatTemplate.TOKENIZER: "tokenizer"}
    chosen = None if template is None else names[template]
    if chat is not None:
        return RecordForm("chat", (chat.strip(),), chosen or "plain")
    if pairs is None:
        return None
    bare = " " if separator is None else separator
    return RecordForm("pairs", tuple(key.strip() for key in pairs.split(",")), chosen, "" if chosen else bare)


def _number_of_tokens(option: str, text: str) -> int:
    """Reads 10e9, 10_000 or 250000.

    Raises:
        TrainyardError: it is no whole number.
    """
    try:
        number = Decimal(text)
        if number == number.to_integral_value() and 0 < number < MOST_TOKENS:
            return int(number)
    except ArithmeticError:
        pass
    raise TrainyardError(f"{option} '{shortened(text)}' is no number of tokens; write 10e9 or 250000")


if __name__ == "__main__":
    run_app(app, "preprocess", OF_PREPROCESS)
