"""`tools/dataset`: look at, check, adopt, merge, split, hash and blend datasets, and what runs read of them."""

import json
from pathlib import Path

import typer

from megatron_patches.sizes import counted
from tools.commands.dataset.bench import bench
from tools.commands.dataset.blend import blend
from tools.commands.dataset.lengths import lengths
from tools.commands.dataset.plan import OVERRIDES, overlap, plan
from tools.commands.dataset.proof import proof
from tools.commands.dataset.shards import merge, prefix_of, split
from tools.commands.dataset.text import text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Look at, check, adopt, merge, split, hash and blend datasets, and look at what runs read of them.",
)

VERIFIED = typer.Option(False, "--json", help="For other programs: an object, or a list of them for several datasets.")
AS_JSON = typer.Option(False, "--json", help="For other programs; numbers are exact.")
PREFIX = typer.Argument(help="The dataset's path without .bin or .idx.", callback=prefix_of)
PREFIXES = typer.Argument(
    metavar="PREFIX", help="Datasets' paths without .bin; the name of an .idx means its dataset: data/web-*.idx."
)


@app.command()
def info(
    prefix: Path = PREFIX,
    split: str = typer.Option("", help="Also show the documents and tokens of a split such as 949,50,1."),
    show: int = typer.Option(0, min=0, help="Also decode this many tokens of the beginning; needs --tokenizer."),
    tokenizer: Path | None = typer.Option(None, help="The dataset's tokenizer, for --show."),
    as_json: bool = AS_JSON,
) -> None:
    """Show what a dataset holds, and how it was made.

    Example: tools/dataset info data/mine/text --split 949,50,1
    """
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
def verify(prefixes: list[Path] = PREFIXES, as_json: bool = VERIFIED) -> None:
    """Read datasets whole and compare them with their manifests: hashes, structure, token ids, counts.

    The first that differs ends it. Exit code 0: all are as their manifests say; 2: one is not, or is missing.

    Example: tools/dataset verify data/web-*.idx
    """
    from data_tools.datasets.verification import verify_dataset
    from tools.terminal import tell

    verified = []
    for prefix in map(prefix_of, prefixes):
        facts = verify_dataset(prefix)
        if as_json:
            verified.append({"prefix": str(prefix), "verified": True, **facts.model_dump()})
            continue
        held = f"{counted(facts.documents, 'document')} and {counted(facts.tokens, 'token')}"
        tell(f"{prefix}: {held} are what the manifest says")
    if as_json:
        print(json.dumps(verified[0] if len(verified) == 1 else verified, indent=2))


@app.command()
def adopt(
    prefix: Path = PREFIX,
    tokenizer: Path = typer.Option(help="The tokenizer that the dataset was made with."),
) -> None:
    """Write the manifest of a dataset that something else made, after reading it whole.

    Example: tools/dataset adopt data/megatron/text_document --tokenizer data/gpt2
    """
    from data_tools.datasets.adoption import adopt_dataset

    manifest = adopt_dataset(prefix, tokenizer)
    print(f"{prefix}: adopted with id {manifest.id[:12]}")


@app.command("hash")
def hash_documents(prefixes: list[Path] = PREFIXES) -> None:
    """Write the hashes of a dataset's documents, PREFIX.hashes, which a split by document_hash reads.

    Where the dataset's folder is read-only, they go to the folder that TRAINYARD_PLANS names. Those of the dataset as
    it is now are kept; damaged ones, and those of an earlier dataset of this name, are replaced.

    Example: tools/dataset hash data/web-*.idx
    """
    from tools.commands.dataset.hashing import hash_datasets

    hash_datasets([prefix_of(each) for each in prefixes])


for command in (merge, split, lengths, text, blend, proof, bench):
    app.command()(command)
for of_a_run in (plan, overlap):
    app.command(context_settings=OVERRIDES)(of_a_run)
