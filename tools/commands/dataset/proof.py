"""`tools/dataset proof`: whether a run was trained on what its files hold, in their order."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tools.run_views.proof import CheckpointProof, LaunchProof, Proof

_STEPS = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")
_HEAD = ("launch or checkpoint", "steps", "compared", "samples", "result")
_TOLD = 5


def proof(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was launched: its name, or its directory.")],
    steps: Annotated[
        str,
        typer.Option(
            metavar="FROM:TO",
            help="Only these steps, counted from 1, TO not among them: 100:200. Checkpoints are compared where FROM is "
            "1, since theirs is the sum over all steps.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For other programs; hashes are hexadecimal.")] = False,
) -> None:
    """Compare the samples that a run was trained on with those that its files hold now, in their order.

    Each step recorded a hash of what was read for it, and each checkpoint the sum over all steps before it. Both are
    computed again from the datasets. Exit code 0: all that is on record is equal, and what is not is named; 1:
    something differs; 2: it cannot be looked at.

    Example: tools/dataset proof tr3d-1B3-more-warmup --steps 1:1000
    """
    from megatron_patches.sizes import counted
    from tools.run_files.checkpoint_reference import find_run_directory
    from tools.run_views.proof import prove
    from tools.tables import print_table
    from tools.terminal import remark, tell, tell_json

    within = _range(steps) if steps else None
    found = prove(find_run_directory(run), within, remark)
    if as_json:
        tell_json(found.as_json())
    else:
        rows = [*map(_launch_row, found.launches), *map(_checkpoint_row, found.checkpoints)]
        if rows:
            print_table(_HEAD, rows, numbers={2, 3})
        for line in _lines(found):
            tell(line)
        compared = sum(each.compared for each in found.launches)
        if not found.differs and not found.incomplete:
            tell(f"{found.run}: {counted(compared, 'step')} delivered what the files hold, in this order")
    if found.differs:
        raise typer.Exit(1)
    if found.incomplete:
        remark(f"error: {found.run}: {_why_incomplete(found, within)}")
        raise typer.Exit(2)


def _range(text: str) -> tuple[int, int]:
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import shortened

    found = _STEPS.fullmatch(text)
    if found is None or not 1 <= int(found[1]) < int(found[2]):
        raise TrainyardError(
            f"--steps takes FROM:TO, not {shortened(text, 40)}: FROM is the first step, counted from 1, and TO the one "
            "after the last"
        )
    return int(found[1]), int(found[2])


def _launch_row(proof: "LaunchProof") -> tuple[str, ...]:
    steps = f"{proof.steps[0]} to {proof.steps[1]}" if proof.steps else "-"
    return f"launch {proof.launch}", steps, f"{proof.compared:,}", f"{proof.samples:,}", _result(proof)


def _result(proof: "LaunchProof") -> str:
    from megatron_patches.sizes import counted

    if proof.problem:
        return "cannot be looked at"
    if proof.first is not None:
        return f"differs from step {proof.first.step} on ({counted(len(proof.differing), 'step')} in all)"
    return "equal" if proof.compared else "no hash on record"


def _checkpoint_row(proof: "CheckpointProof") -> tuple[str, ...]:
    result = {True: "equal", False: "differs", None: f"not computed: {proof.why_not}"}[proof.equal]
    result = "no running hash on record" if proof.recorded is None else result
    return proof.name, "", "", f"{proof.samples:,}", result


def _lines(found: "Proof") -> Iterator[str]:
    """What the table has no room for."""
    from data_tools.samples.delivered import VERSION, hash_text
    from megatron_patches.sizes import counted

    for launch in found.launches:
        if launch.problem:
            yield f"launch {launch.launch} cannot be looked at: {launch.problem}"
        if launch.unrecorded is not None:
            first, last, count = launch.unrecorded
            which = f"steps {first} to {last}" if count > 1 else f"step {first}"
            some = f" ({count:,} of them)" if count != last - first + 1 else ""
            known = launch.version in (None, VERSION)
            why = "recorded by an earlier version" if known else "recorded by a version with another formula"
            yield f"launch {launch.launch}: {which}{some} have no hash that can be compared: {why}"
        if (first_one := launch.first) is not None:
            yield (
                f"launch {launch.launch}, step {first_one.step}: {hash_text(first_one.recorded)} was delivered, the "
                f"files hold {hash_text(first_one.found)}"
            )
            read = ", ".join(f"{name} {count:,}" for name, count in first_one.sources.items())
            yield f"  samples by source: {read}"
            for text in first_one.explanations[:_TOLD]:
                yield f"  one change explains it: {text}"
            if not first_one.explanations:
                yield "  no single token and no pair of samples explains it"
            paths = " ".join(first_one.datasets[:_TOLD]) + (" ..." if len(first_one.datasets) > _TOLD else "")
            yield f"  compare the files with their manifests: tools/dataset verify {paths}"
    if found.gaps:
        told = ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in found.gaps[:_TOLD])
        more = f" and {len(found.gaps) - _TOLD:,} more ranges" if len(found.gaps) > _TOLD else ""
        count = sum(last - first + 1 for first, last in found.gaps)
        yield (
            f"no record of {counted(count, 'step')} of the run, which could not be compared: {told}{more}. The hash of "
            "a later checkpoint covers them where it is equal"
        )
    yield from found.strangers


def _why_incomplete(found: "Proof", within: tuple[int, int] | None) -> str:
    if any(each.problem for each in found.launches):
        return (
            "not all launches could be looked at; what is equal is said above of the others. Data that lies somewhere "
            "else on this machine is found by links at the paths of launches/LAUNCH/config.yaml"
        )
    where = f" within steps {within[0]}:{within[1]}" if within else ""
    if not found.launches:
        return f"no step is on record{where}; name a run that was trained"
    return f"no step has a hash on record{where}: it was trained by an earlier version"
