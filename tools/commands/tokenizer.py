"""`tools/tokenizer`: train, extend and look at tokenizers."""

from enum import StrEnum
from pathlib import Path

import typer

from tools.command_line import run_app
from tools.megatron_flags import OF_A_TOKENIZER


class Kind(StrEnum):
    """What can be trained."""

    BPE = "bpe"
    WORDPIECE = "wordpiece"


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train, extend and look at tokenizers.")


@app.command()
def train(
    files: list[Path] = typer.Argument(help="Text to learn from: files or folders, as for tools/preprocess."),
    output: Path = typer.Option(help="Folder to make for the tokenizer."),
    vocab_size: int = typer.Option(
        help="Ids in all. bpe: the end-of-document token, 256 bytes, and merges; wordpiece: five special tokens, "
        "characters, and pieces of words."
    ),
    kind: Kind = typer.Option(
        Kind.BPE, help="bpe: byte-level BPE, as GPT-2's. wordpiece: as BERT's, with [PAD], [UNK], [CLS], [SEP], [MASK]."
    ),
    lowercase: bool = typer.Option(
        False, "--lowercase", help="With wordpiece: take accents and capitals away from every text."
    ),
    sep_ends_documents: bool = typer.Option(
        False,
        "--sep-ends-documents",
        help="With wordpiece: name [SEP] as the end-of-document token too, for documents that are read as a stream; "
        "otherwise there is none. Not for data.samples.wrapped, which adds [SEP] itself.",
    ),
    json_key: str = typer.Option("text", help="Key (or column) that holds the texts."),
    max_document_mib: int = typer.Option(256, min=1, help="Longest document that is read, in MiB of its file's bytes."),
) -> None:
    """Train a byte-level BPE, or a WordPiece; the same text gives the same tokenizer.

    Example: tools/tokenizer train data/raw/web --output data/tokenizer --vocab-size 32000

    Example: tools/tokenizer train data/raw/web --output data/wordpiece --vocab-size 32000 --kind wordpiece --lowercase
    """
    from data_tools.reading.files.sources import FoundParts, describe_not_read
    from data_tools.text.tokenizer_training import train_bpe
    from data_tools.text.wordpiece_training import train_wordpiece
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import printable

    if kind is Kind.BPE and (lowercase or sep_ends_documents):
        option = "--lowercase" if lowercase else "--sep-ends-documents"
        raise TrainyardError(
            f"{option} is for --kind wordpiece: a byte-level BPE keeps every text as it is, and ends "
            "documents with a token of its own; leave it out, or add --kind wordpiece"
        )

    def tell(found: FoundParts) -> None:
        if found.not_read:
            print(f"note: of the folders' files, {describe_not_read(found.not_read)}")

    largest = max_document_mib << 20
    if kind is Kind.BPE:
        manifest = train_bpe(files, output, vocab_size, json_key=json_key, largest_document=largest, on_found=tell)
    else:
        manifest = train_wordpiece(
            files, output, vocab_size, lowercase, sep_ends_documents, json_key, largest_document=largest, on_found=tell
        )
    print(f"{printable(output)}: tokenizer of {vocab_size:,} ids, id {manifest.id[:12]}")


@app.command()
def extend(
    path: Path = typer.Argument(help="Folder with a tokenizer.json, which stays as it is."),
    output: Path = typer.Option(help="Folder to make for the extended tokenizer."),
    add: list[str] = typer.Option([], help="A token to add; may be given several times: --add '<A>' --add '<B>'."),
    add_file: list[Path] = typer.Option(
        [], help="File of tokens to add, one on each line; may be given several times."
    ),
    multiplication: bool = typer.Option(
        False, "--multiplication", help="Add the 45 tokens of the multiplication table, <MUL_1_1_1> to <MUL_9_9_81>."
    ),
    first_id: int | None = typer.Option(
        None,
        help="Id of the first added token; ids before it that are free stand for <UNUSED_id>. For GPT-2, whose 50,257 "
        "ids are often padded: --first-id 50304",
    ),
    allow_invalid: bool = typer.Option(False, "--allow-invalid", help="The tokenizer may be marked invalid."),
) -> None:
    """Add tokens behind a tokenizer's vocabulary; its own ids stay. Text that spells an added token stays text: it
    enters as an id alone, as tools/preprocess --inject has it.

    Example: tools/tokenizer extend data/gpt2 --output data/gpt2-mul --multiplication --first-id 50304
    """
    from data_tools.domain_tokens.multiplication import multiplication_tokens
    from data_tools.text.tokenizer_extension import extend_tokenizer, read_tokens
    from megatron_patches.foreign.printable import printable

    tokens = [token for file in add_file for token in read_tokens(file)]
    tokens += [*add, *(multiplication_tokens() if multiplication else [])]
    asked = [word for file in add_file for word in ("--add-file", file.name)]
    asked += [*(word for token in add for word in ("--add", token)), *(["--multiplication"] if multiplication else [])]
    manifest = extend_tokenizer(path, output, tokens, first_id, allow_invalid, asked)
    facts = manifest.facts
    print(
        f"{printable(output)}: tokenizer of {facts['vocab_size']:,} ids, {len(tokens):,} of them added from id "
        f"{facts['first_added_id']:,}, id {manifest.id[:12]}"
    )


@app.command()
def info(
    path: Path = typer.Argument(help="Folder with a tokenizer.json, or a SentencePiece .model."),
    as_json: bool = typer.Option(False, "--json", help="For other programs; numbers are exact."),
) -> None:
    """Show what a tokenizer is.

    Example: tools/tokenizer info data/tokenizer
    """
    from data_tools.text.special_tokens import ROLES, special_tokens_of
    from data_tools.text.tokenizers import find_tokenizer, load_tokenizer

    tokenizer, found = load_tokenizer(path), find_tokenizer(path)
    files = [file.name for file in found.present]
    special, names = special_tokens_of(tokenizer, found), tokenizer.tokens()
    ids = {role: getattr(special, role) for role in ROLES}
    roles = {role: {"id": number, "token": names[number]} for role, number in ids.items() if number is not None}
    end = tokenizer.end_of_document
    text = None if end is None else tokenizer.decode([end])
    if as_json:
        import json

        facts = {"name": tokenizer.name, "id": tokenizer.id, "files": files, "vocab_size": tokenizer.vocab_size}
        print(json.dumps({**facts, "end_of_document": end, "end_of_document_text": text, "roles": roles}, indent=2))
        return
    from tools.tables import print_facts

    print_facts(
        [
            ("tokenizer", tokenizer.name),
            ("id", tokenizer.id),
            ("read from", ", ".join(files)),
            ("vocabulary", f"{tokenizer.vocab_size:,} ids"),
            ("end of document", "none" if end is None else f"{end} {text!r}"),
            *((role, f"{each['id']} {each['token']!r}") for role, each in roles.items()),
        ]
    )


if __name__ == "__main__":
    run_app(app, "tokenizer", OF_A_TOKENIZER)
