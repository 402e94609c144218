"""`tools/dataset bench`: text to datasets, beside rebuilt peers."""

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Literal

import typer

from megatron_patches.errors import TrainyardError

MB = 1_000_000


def bench(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="A .jsonl file with the key text."),
    make_text: int | None = typer.Option(
        None, min=1, metavar="MB", help="In place of FILE: sources and documentation of the installed Python packages."
    ),
    random_words: int | None = typer.Option(
        None, min=1, metavar="MB", help="In place of FILE: words that are rarely repeated, so that caches grow."
    ),
    tokenizer: Path | None = typer.Option(
        None,
        help="The tokenizer's folder; without it one is trained on the first 10 MB of the text (for random words, of "
        "the packages' text).",
    ),
    kind: Literal["bpe", "wordpiece", "unigram", "sentencepiece"] | None = typer.Option(
        None, help="What the trained tokenizer is made of; byte-level BPE if it is not given."
    ),
    vocab_size: int | None = typer.Option(
        None, min=257, help="Ids of the trained tokenizer; 16,000 if it is not given."
    ),
    stream: bool = typer.Option(
        False, "--stream", help="Measure instead how fast training reads samples straight from the text; no peers."
    ),
    workers: int = typer.Option(
        2,
        min=1,
        help="Processes of tools/preprocess and of the pool, threads of gigatoken; with --stream, cores in all.",
    ),
    rounds: int = typer.Option(3, min=0, help="Timed rounds; 0: only memory and equality."),
    pool: bool = typer.Option(True, "--pool/--no-pool", help="The first peer, which takes most of the time."),
    whole_file: bool = typer.Option(True, "--whole-file/--no-whole-file", help="The second, which takes most memory."),
    folder: Path | None = typer.Option(
        None, help="For texts and datasets meanwhile; by default the system's folder of temporary files."
    ),
    json_file: Path | None = typer.Option(None, "--json", metavar="FILE", help="Also write all that was measured."),
    figures: str | None = typer.Option(
        None, metavar="NAME", help="Also print entries for benchmarks/figures.yaml, named NAME-..."
    ),
) -> None:
    """Measure tools/preprocess beside two peers, as whole processes in turns, and compare what they make byte for byte.

    The peers are rebuilt from what Megatron-LM's tools do. pool (preprocess_data.py): a pool of processes, one call of
    transformers for each record, one writer. whole-file (preprocess_data_fast.py): gigatoken over the whole file, with
    all documents in memory. Neither imports torch or Megatron. A SentencePiece .model is T5's to transformers, whose
    ids differ from sentencepiece's in a few documents: there the documents of pool are counted, not compared.

    Example: tools/dataset bench --make-text 200

    Example: tools/dataset bench --random-words 1200 --rounds 0 --no-pool

    Example: tools/dataset bench --make-text 200 --stream
    """
    from data_tools.benchmark.comparison import compare
    from data_tools.benchmark.contenders import POOL, WHOLE_FILE, Task
    from data_tools.benchmark.preparation import VOCAB_SIZE, TextRequest, prepare_text, prepare_tokenizer
    from data_tools.benchmark.result import Setting, as_json
    from data_tools.benchmark.small_tokenizers import Kind
    from data_tools.benchmark.straight_from_text import measure_feeding
    from megatron_patches.atomic_files import write_atomically
    from tools.commands.dataset.bench_tables import print_comparison, print_feeding, print_figures
    from tools.terminal import remark

    _check(file, make_text, random_words, tokenizer, kind, vocab_size)
    if stream and not (pool and whole_file and rounds and json_file is None and figures is None):
        raise TrainyardError(
            "--stream has no peers, prints alone, and times at least one round; leave out --no-pool, --no-whole-file, "
            "--rounds 0, --json and --figures"
        )
    request = TextRequest(file, *(None if size is None else size * MB for size in (make_text, random_words)))
    with tempfile.TemporaryDirectory(dir=folder, prefix="trainyard-bench-") as temporary:
        place = Path(temporary)
        text = prepare_text(request, place)
        if tokenizer is None:
            chosen = prepare_tokenizer(Kind(kind or Kind.BPE), vocab_size or VOCAB_SIZE, request, text, place)
            words = f"{chosen.name}, up to {vocab_size or VOCAB_SIZE:,} ids"
        else:
            chosen, words = tokenizer.resolve(), tokenizer.resolve().name
        setting = Setting(text.words, text.path.stat().st_size, words, _command(json_file, figures))
        if stream:
            print_feeding(measure_feeding(text.path, chosen, workers, rounds, place, remark), setting)
            return
        peers = [name for name, wanted in ((POOL, pool), (WHOLE_FILE, whole_file)) if wanted]
        comparison = compare(text.path, Task(chosen, workers), peers, rounds, place, remark)
    print_comparison(comparison, setting)
    if figures is not None:
        print_figures(comparison, setting, figures)
    if json_file is not None:
        write_atomically(json_file, (json.dumps(as_json(comparison, setting), indent=2) + "\n").encode())


def _command(json_file: Path | None, figures: str | None) -> str:
    """The command line without what is to be done with the figures."""
    left_out = {"--json": json_file, "--figures": figures}
    words = list(sys.argv[1:])
    for option, value in left_out.items():
        if value is not None:
            at = next(number for number, word in enumerate(words) if word.partition("=")[0] == option)
            del words[at : at + (1 if "=" in words[at] else 2)]
    return shlex.join(["tools/dataset", *words])


def _check(
    file: Path | None,
    make_text: int | None,
    random_words: int | None,
    tokenizer: Path | None,
    kind: str | None,
    vocab_size: int | None,
) -> None:
    """Raises TrainyardError for options that exclude each other, or of which one would do nothing."""
    if sum(each is not None for each in (file, make_text, random_words)) != 1:
        raise TrainyardError("give one text: a .jsonl file, --make-text MB, or --random-words MB")
    if tokenizer is not None and (kind is not None or vocab_size is not None):
        raise TrainyardError("--kind and --vocab-size describe a tokenizer to train; leave them out, or --tokenizer")
