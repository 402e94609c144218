"""`tools/preprocess`: text to a dataset."""

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened
from megatron_patches.sizes import counted
from tools.command_line import run_app
from tools.megatron_flags import OF_PREPROCESS

if TYPE_CHECKING:  # numpy and pydantic would double the time that --help takes
    from data_tools.datasets.manifest import DatasetFacts
    from data_tools.datasets.preprocessing.preprocess import EncodingProgress, PreprocessRequest, PreprocessSummary
    from data_tools.records.record import RecordForm, TemplateName

FEW_DOCUMENTS = 20  # a split of 949,50,1 leaves no document for validation
MOST_TOKENS = 1 << 62


class ChatTemplate(StrEnum):
    """What is written around messages."""

    PLAIN = "plain"
    TOKENIZER = "tokenizer"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    inputs: list[Path] = typer.Argument(
        help="Files, or folders of them, in this order: .jsonl, .json (lines or one array), .ndjson, .txt, each also "
        "with .gz .zst .bz2 .xz, and .parquet. Links are followed; what a folder holds beside them is named."
    ),
    output: Path = typer.Option(
        help="Prefix of the dataset: PREFIX.bin, .idx, .manifest.json; with several keys PREFIX_KEY for each."
    ),
    tokenizer: Path = typer.Option(help="Folder with a tokenizer.json, or a SentencePiece .model."),
    json_keys: str | None = typer.Option(
        None, help="Keys (or columns) that hold the texts, separated by commas; text where none is given."
    ),
    pairs: str | None = typer.Option(
        None,
        help="Keys of inputs and of targets, which are their answers, in place of texts. One dataset says in its index "
        "which tokens are answers. Example: --pairs question,answer",
    ),
    chat: str | None = typer.Option(
        None,
        help='Key of a list of messages {"role": "user", "content": "..."}, of which those of the role assistant are '
        "answers, in place of texts. Example: --chat messages",
    ),
    chat_template: ChatTemplate | None = typer.Option(
        None,
        help="What is written around messages. plain: 'User: ...', an empty line, 'Assistant: ...'. tokenizer: the "
        "template in the tokenizer's folder. Chats have the plain one where none is named, pairs none. "
        "Example: --pairs question,answer --chat-template plain",
    ),
    pair_separator: str | None = typer.Option(
        None,
        help="What the answers of pairs without a template begin with; a space where none is given. "
        "Example: --pair-separator $'\\n'",
    ),
    append_eod: bool = typer.Option(
        False,
        "--append-eod",
        help="End each document with the end-of-document token. Answers of pairs and plain chats always end with it.",
    ),
    tokens: str | None = typer.Option(
        None,
        help="Stop after the document that brings the dataset to this many tokens (with several keys, the first "
        "key's dataset). Sources with fewer tokens are an error. Example: --tokens 10e9",
    ),
    parse_special: bool = typer.Option(
        False,
        "--parse-special",
        help="Let text that spells a control token, such as <|endoftext|>, become that token. Only for the same bytes "
        "as Megatron-LM writes: whoever wrote the text then decides where documents end.",
    ),
    inject: Literal["weak", "strict"] | None = typer.Option(
        None,
        help="Let a product of two digits become one token of the multiplication table: with weak 3*4, 3 × 4 and "
        "3 x 4 = 12, with strict those with their product alone. Needs a tokenizer of tools/tokenizer extend "
        "--multiplication. Example: --inject strict",
    ),
    synthetic_arithmetic: int = typer.Option(
        0,
        min=0,
        help="Made-up documents of multiplication facts to spread evenly over the others; the sources are read twice "
        "then. Example: --synthetic-arithmetic 20000",
    ),
    seed: int | None = typer.Option(
        None, help="What the made-up documents follow from; 0 if it is not given. The same seed makes the same ones."
    ),
    max_document_mib: int = typer.Option(256, min=1, help="Longest document that is read, in MiB of its file's bytes."),
    workers: int = typer.Option(1, help="Processes that tokenize; the result does not depend on it."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a dataset of the same name."),
    allow_invalid: bool = typer.Option(False, "--allow-invalid", help="The tokenizer may be marked invalid."),
) -> None:
    """Tokenize text into a dataset that runs read. Documents keep the order of the files and of their lines.

    Example: tools/preprocess data/raw/web --output data/web --tokenizer data/tokenizer --append-eod --workers 8

    Example: tools/preprocess gsm8k.jsonl --output data/pairs --tokenizer data/tokenizer --pairs question,answer
    """
    from data_tools.datasets.preprocessing.preprocess import PreprocessRequest
    from data_tools.domain_tokens.request import ArithmeticRequest

    request = PreprocessRequest(
        inputs=inputs,
        output=output,
        tokenizer=tokenizer,
        json_keys=[key.strip() for key in (json_keys or "text").split(",")],
        records=_record_form(json_keys, pairs, chat, chat_template, pair_separator),
        append_eod=append_eod,
        tokens=None if tokens is None else _number_of_tokens(tokens),
        parse_special=parse_special,
        largest_document=max_document_mib << 20,
        workers=workers,
        overwrite=overwrite,
        allow_invalid=allow_invalid,
        arithmetic=ArithmeticRequest(inject, synthetic_arithmetic, seed),
    )
    _print(_with_progress_bar(request))


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


def _number_of_tokens(text: str) -> int:
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
    raise TrainyardError(f"--tokens '{shortened(text)}' is no number of tokens; write 10e9 or 250000")


def _with_progress_bar(request: "PreprocessRequest") -> "PreprocessSummary":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from data_tools.datasets.preprocessing.preprocess import preprocess

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.fields[documents]:,} documents")
    with Bar(text, *columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None, documents=0)

        def show(progress: "EncodingProgress") -> None:
            bar.update(
                task,
                total=progress.total_source_bytes,
                completed=progress.source_bytes,
                documents=progress.documents,
            )

        return preprocess(request, show)


def _print(summary: "PreprocessSummary") -> None:
    from data_tools.reading.files.sources import describe_not_read

    for dataset in summary.datasets:
        facts = dataset.facts
        empty = f", {facts.empty_documents:,} of them empty" if facts.empty_documents else ""
        print(
            f"{dataset.prefix}: {counted(facts.documents, 'document')}{empty}, {counted(facts.tokens, 'token')} of "
            f"{facts.dtype}, id {dataset.id[:12]}"
        )
        if facts.answers is not None:
            print(f"{counted(facts.answers.answers, 'answer')} of {counted(facts.answers.tokens, 'token')}")
        if facts.documents < FEW_DOCUMENTS:
            print(
                f"note: {counted(facts.documents, 'document')} may be too few to split into training and validation, "
                "since documents are never cut for it; a .txt file is one document, each line of a .jsonl another"
            )
        _print_arithmetic(facts)
    if summary.not_read:
        print(f"note: of the folders' files, {describe_not_read(summary.not_read)}")
    print(
        f"{summary.text_bytes / 1e6:,.1f} MB of text in {summary.seconds:,.1f} s: "
        f"{summary.megabytes_per_second:,.2f} MB/s, {summary.tokens_per_second:,.0f} tokens/s"
    )


def _print_arithmetic(facts: "DatasetFacts") -> None:
    from data_tools.domain_tokens.report import describe_injection

    if facts.settings is not None and (made := facts.settings.synthetic_documents):
        print(f"made up: {counted(made, 'document')} of multiplication facts among them")
    for name, told in describe_injection(facts.injection) if facts.injection is not None else ():
        print(f"{name}: {told}")


if __name__ == "__main__":
    run_app(app, "preprocess", OF_PREPROCESS)
