"""Megatron-LM's flags, answered with ours in one sentence each, before typer says that they do not exist."""

from collections.abc import Mapping, Sequence

from megatron_patches.errors import TrainyardError


def refuse_megatron_flags(arguments: Sequence[str], answers: Mapping[str, str]) -> None:
    """Raise TrainyardError if a command line has flags of Megatron-LM's command of the same purpose.

    Args:
        answers: what to say of each flag, with its dashes.
    """
    given = [word.partition("=")[0] for word in arguments]
    told = [f"{flag} is Megatron-LM's: {answers[flag]}" for flag in dict.fromkeys(given) if flag in answers]
    if told:
        raise TrainyardError("\n".join(told))


_TOKENIZER = "give its folder (with a tokenizer.json) or its .model as --tokenizer PATH"
_ONE_PROCESS = "leave it out, the files are read in their order by one process and tokenized by --workers"
OF_PREPROCESS = {
    "--input": "give files or folders without a flag, tools/preprocess FILES --output PREFIX --tokenizer DIR",
    "--output-prefix": "write --output PREFIX",
    "--tokenizer-type": f"leave it out, {_TOKENIZER}",
    "--tokenizer-model": _TOKENIZER,
    "--vocab-file": f"{_TOKENIZER}; vocab.json and merges.txt alone become one by transformers' save_pretrained",
    "--merge-file": f"{_TOKENIZER}; vocab.json and merges.txt alone become one by transformers' save_pretrained",
    "--vocab-size": "leave it out, the tokenizer says its size",
    "--tokenizer-kwargs": "leave it out, the tokenizer's own files say how it reads",
    "--tiktoken-pattern": "leave it out, tiktoken files are converted to a tokenizer.json by transformers",
    "--tiktoken-num-special-tokens": "leave it out, tiktoken files are converted to a tokenizer.json by transformers",
    "--tiktoken-special-tokens": "leave it out, tiktoken files are converted to a tokenizer.json by transformers",
    "--dataset-impl": "leave it out, the format is always mmap's .bin and .idx",
    "--split-sentences": "leave it out, a text is one sequence here",
    "--keep-newlines": "leave it out, newlines are kept",
    "--keep-sequential-samples": "leave it out, documents always keep their order",
    "--lang": "leave it out, sentences are not split",
    "--partitions": _ONE_PROCESS,
    "--log-interval": "leave it out, a terminal shows a bar of progress",
    "--chunk-size": _ONE_PROCESS,
    "--find-optimal-num-workers": "leave it out, --workers takes as many processes as there are cores to spare",
}
"""of tools/preprocess_data.py; --json-keys, --append-eod and --workers are ours too, keys separated by commas"""
OF_A_DATASET = {
    "--data-path": "give the dataset's prefix without a flag",
    "--path-to-folder": "give the dataset's prefix without a flag",
    "--input": "give the prefixes to merge without a flag, tools/dataset merge OUTPUT PREFIX...",
    "--output-prefix": "give it without a flag, tools/dataset merge OUTPUT PREFIX...",
    **{flag: OF_PREPROCESS[flag] for flag in ("--tokenizer-type", "--tokenizer-model", "--vocab-file", "--merge-file")},
}
OF_A_TOKENIZER = {
    "--input": "give files or folders without a flag, tools/tokenizer train FILES --output DIR --vocab-size N",
    "--output-prefix": "write --output DIR",
    "--json-keys": "write --json-key KEY",
    **{
        flag: "give the tokenizer's folder or .model without a flag"
        for flag in OF_A_DATASET
        if "token" in flag or "file" in flag
    },
}
