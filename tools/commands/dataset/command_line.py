"""`tools/dataset`: look at, check, adopt, merge, split, hash and blend datasets, and what runs read of them."""

import json
from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.commands.dataset.blend import blend
from tools.commands.dataset.lengths import lengths
from tools.commands.dataset.plan import OVERRIDES, overlap, plan
from tools.commands.dataset.proof import proof
from tools.commands.dataset.shards import merge, split
from tools.commands.dataset.text import text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at, check, adopt, merge, split, hash and blend datasets, and look at what runs read of them.",
)

AS_JSON = typer.Option(False, "--json", help="For other programs; numbers are exact.")
PREFIX = typer.Argument(help="The dataset's path without .bin or .idx.")


@app.command()
def info(
    prefix: Path = PREFIX,
    split: str = typer.Option("", help="Also show the documents and tokens of a split such as 949,50,1."),
    show: int = typer.Option(0, min=0, help="Also decode this many tokens of the beginning; needs --tokenizer."),
    tokenizer: Path | None = typer.Option(None, help="The dataset's tokenizer, for --show."),
    as_json: bool = AS_JSON,
) -> None:
    """Show what a dataset holds."""
    from megatron_patches.errors import TrainyardError
    from tools.commands.dataset.tables import SPLIT_HEAD, beginning, contents, describe, split_rows

    if (show > 0) != (tokenizer is not None):
        raise TrainyardError("--show N and --tokenizer DIR belong together; give both, or neither")
    if as_json:
        print(json.dumps(describe(prefix, split, show, tokenizer), indent=2))
        return
    from tools.tables import print_facts, print_table
    from tools.terminal import tell

    print_facts(contents(prefix))
    if split:
        print_table(SPLIT_HEAD, split_rows(prefix, split), numbers={1, 2, 3, 4})
    if tokenizer is not None:
        tell(beginning(prefix, show, tokenizer), layout=True)


@app.command()
def verify(prefix: Path = PREFIX, as_json: bool = AS_JSON) -> None:
    """Read a dataset whole and compare it with its manifest: hashes, structure, token ids, counts."""
    from data_tools.datasets.verification import verify_dataset

    facts = verify_dataset(prefix)
    if as_json:
        print(json.dumps({"prefix": str(prefix), "verified": True, **facts.model_dump()}, indent=2))
        return
    held = f"{counted(facts.documents, 'document')} and {counted(facts.tokens, 'token')}"
    print(f"{prefix}: {held} are what the manifest says")


@app.command()
def adopt(
    prefix: Path = PREFIX,
    tokenizer: Path = typer.Option(help="The tokenizer that the dataset was made with."),
) -> None:
    """Write the manifest of a dataset that something else made, after reading it whole."""
    from data_tools.datasets.adoption import adopt_dataset

    manifest = adopt_dataset(prefix, tokenizer)
    print(f"{prefix}: adopted with id {manifest.id[:12]}")


@app.command("hash")
def hash_documents(
    prefixes: list[Path] = typer.Argument(help="Datasets' paths without .bin or .idx: data/web-0 data/web-1."),
) -> None:
    """Write the hashes of a dataset's documents, PREFIX.hashes, which a split by document_hash reads.

    Where the dataset's folder is read-only, they go to the folder that TRAINYARD_PLANS names. Those of the dataset as
    it is now are kept; damaged ones, and those of an earlier dataset of this name, are replaced.
    """
    from tools.commands.dataset.hashing import hash_datasets

    hash_datasets(prefixes)


for command in (merge, split, lengths, text, blend, proof):
    app.command()(command)
for of_a_run in (plan, overlap):
    app.command(context_settings=OVERRIDES)(of_a_run)
