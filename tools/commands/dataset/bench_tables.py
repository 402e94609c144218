"""What `tools/dataset bench` prints: a table of 80 columns, and entries for the record of figures."""

import textwrap
from collections.abc import Iterator, Sequence

from data_tools.benchmark.comparison import Comparison, Measured
from data_tools.benchmark.contenders import OURS
from data_tools.benchmark.result import Medians, Setting, machine, medians_of, ratios_of
from data_tools.benchmark.straight_from_text import GPU, MODELS, SHARE, Fed
from megatron_patches.configuration.yaml_text import dump_yaml
from megatron_patches.sizes import counted, readable
from tools.tables import print_table
from tools.terminal import tell

COLUMNS = 80
_HEAD = ("median of rounds", "whole", "start", "work", "CPU", "MB/s", "memory")
_NAMED_VERSIONS = ("tokenizers", "gigatoken", "fastokens", "transformers", "sentencepiece")


def print_comparison(comparison: Comparison, setting: Setting) -> None:
    """The setting, a row for each contender, ratios, and what was compared."""
    _print_setting(setting)
    _print_rows(comparison.measured, setting)
    tell()
    for each in comparison.measured[1:]:
        tell(f"{each.name}: {each.what}")
    for name, reason in comparison.left_out.items():
        _tell_wrapped(f"{name} is left out: {reason}")
    for name, (whole, work) in ratios_of(comparison).items():
        for column, ratio in (("whole", whole), ("work", work)):
            faster, times, slower = _faster(name, ratio)
            tell(f"{column}: {faster} is {times:.2f} times as fast as {slower}")
    _tell_equality(comparison)


def _faster(peer: str, ratio: float) -> tuple[str, float, str]:
    """(the faster, how many times as fast, the slower) where the peer takes `ratio` times as long as ours."""
    return (OURS, ratio, peer) if ratio >= 1 else (peer, 1 / ratio, OURS)


def _tell_equality(comparison: Comparison) -> None:
    """What was compared."""
    documents, tokens = comparison.files.documents, comparison.files.tokens
    held = f"{counted(documents, 'document')}, {counted(tokens, 'token')}"
    others = [each for each in comparison.measured[1:] if each.own_tokens is not None]
    same = [each.name for each in comparison.measured if each.own_tokens is None]
    if len(same) == 1:
        tell(f"made: {held}" + ("" if others else "; there was no peer to compare it with"))
    else:
        who = f"{', '.join(same[:-1])} and {same[-1]}" if others else "all"
        _tell_wrapped(f"{who} made the same .bin and .idx, byte for byte: {held}")
    for each in others:
        tell(f"{each.name} has ids of its own: {each.own_tokens:,} tokens in as many documents")


def _tell_wrapped(text: str) -> None:
    tell("\n".join(textwrap.wrap(text, COLUMNS)), layout=True)


def print_feeding(fed: Fed, setting: Setting) -> None:
    """What a loader gives, and what that feeds."""
    _print_setting(setting)
    _print_rows([fed.measured], setting)
    tell()
    tell(f"{fed.tokens_per_second:,.0f} tokens/s from {fed.measured.what}; {counted(fed.tokens, 'token')} of an epoch")
    for name, parameters in MODELS.items():
        tell(f"that feeds {fed.gpus(parameters):,.1f} {GPU}s that train {name} parameters at {SHARE:.0%} of their peak")


def _print_setting(setting: Setting) -> None:
    facts = machine()
    libraries = [f"{name} {facts[name]}" for name in facts if name not in ("machine", "date", "revision")]
    tell(f"{facts['machine']}, {facts['date']}, {str(facts['revision'])[:12]}")
    tell("\n".join(textwrap.wrap(", ".join(libraries), COLUMNS)), layout=True)
    tell(f"{readable(setting.bytes)}: {setting.text}; tokenizer {setting.tokenizer}")
    tell()


def _print_rows(measured: Sequence[Measured], setting: Setting) -> None:
    rows = [_row(each.name, medians_of(each), setting.bytes) for each in measured]
    print_table(_HEAD, rows, numbers=range(1, len(_HEAD)))
    tell("whole: the process over the text; start: over one document; work: the rest")


def _row(name: str, found: Medians, size: int) -> list[str]:
    times = [_seconds(each) for each in (found.whole, found.start, found.work, found.cpu)]
    return [name, *times, "-" if found.whole is None else f"{size / 1e6 / found.whole:,.1f}", readable(found.memory)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def print_figures(comparison: Comparison, setting: Setting, name: str) -> None:
    """Entries to paste into benchmarks/figures.yaml."""
    facts = machine()
    versions = ", ".join(
        f"{each} {facts[each]}" for each in ("tokenizers", "gigatoken", "transformers") if each in facts
    )
    of_all = {
        "command": setting.command,
        "machine": f"{facts['machine']}, Python {facts['python']}, {versions}",
        "date": facts["date"],
    }
    entries = {
        f"{name}-{part}": {"value": value, "of": f"{what}; {readable(setting.bytes)}, {setting.text}", **of_all}
        for part, value, what in _figures(comparison)
    }
    tell()
    tell(dump_yaml(entries), layout=True)


def _figures(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """(end of its name, value, what it is)"""
    for each in comparison.measured:
        ending, found = each.name.rpartition("/")[2], medians_of(each)
        who = f"{each.name} ({each.what})"
        if found.whole is not None:
            yield ending, _seconds(found.whole), f"{who}, whole process, median of {len(each.whole)}"
            yield f"{ending}-work", _seconds(found.work), f"{who}, without its start, median of {len(each.whole)}"
        yield f"{ending}-memory", readable(found.memory), f"{who}, the most of all its processes together"
    for peer, (whole, work) in ratios_of(comparison).items():
        faster, times, slower = _faster(peer, whole)
        yield f"{peer}-ratio", f"{times:.1f} times", f"{faster} as fast as {slower}, whole processes in turns"
        faster, times, slower = _faster(peer, work)
        yield f"{peer}-work-ratio", f"{times:.1f} times", f"{faster} as fast as {slower}, without their starts"
