"""`tools/inventory gc`: the plan, and carrying it out."""

import json
import sys

from megatron_patches.artefacts.deletion import link_target
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.inventory.removal import RemovalPlan, carry_out, plan_removal
from megatron_patches.artefacts.retention import CopiedRetention
from megatron_patches.checkout import runs_root
from megatron_patches.errors import Refused, refuse
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted, readable
from tools.commands.inventory.listing import open_inventory
from tools.tables import print_table


def collect(runs: list[str], retention: tuple[int, int | None] | None, do: str, as_json: bool) -> None:
    """Prints the plan; with its name in `do`, carries it out.

    Raises:
        Refused: the plan is another one by now.
        TrainyardError: some of it could not be removed; the rest was.
    """
    with open_inventory(thorough=True) as inventory:
        known = inventory.catalogue.run_names()
        names = [resolve_run(run, known) for run in runs] or _own_folders(known)
        keep = CopiedRetention(*retention) if retention else None
        plan = plan_removal(inventory.catalogue, runs_root(), names, keep)
    if do and do != plan.digest:
        raise Refused(
            f"the plan is {plan.digest} by now, not {do}: something changed since. Read it again: tools/inventory gc"
        )
    if as_json:
        print(json.dumps(_as_json(plan), indent=2))
    else:
        _show(plan, bool(do))
    if do:
        done = carry_out(plan)
        print(f"{counted(done.entries, 'folder')} removed, {readable(done.size)} freed", file=sys.stderr)
        for line in done.told:
            print(line, file=sys.stderr)
        refuse(done.problems)
    elif plan.removals:
        arguments = " ".join(word for word in sys.argv[1:] if word != "--json")
        print(f"nothing was removed; to do it: tools/inventory {arguments} --do {plan.digest}", file=sys.stderr)


def _own_folders(names: list[str]) -> list[str]:
    """Runs whose folders lie where they are named: a link in a shared folder of runs may lead anywhere."""
    for name in names:
        if (runs_root() / name).is_symlink():
            leads = link_target(runs_root() / name)
            print(f"passed over: {printable(name)} is a link to {leads}; name it to collect there", file=sys.stderr)
    return [name for name in names if not (runs_root() / name).is_symlink()]


def _show(plan: RemovalPlan, done: bool) -> None:
    if plan.removals:
        rows = [[printable(each.folder), readable(each.size), each.reason] for each in plan.removals]
        print_table(["removed" if done else "would be removed", "size", "why"], rows, numbers={1})
    if plan.kept:
        print_table(["stays", "why"], [[printable(folder), reason] for folder, reason in plan.kept])
    if not plan.removals:
        print("nothing is to be removed", file=sys.stderr)


def _as_json(plan: RemovalPlan) -> dict[str, object]:
    return {
        "plan": plan.digest,
        "removals": [
            {"folder": str(each.folder), "size": each.size, "why": each.reason, "what": each.what}
            for each in plan.removals
        ],
        "kept": [{"folder": str(folder), "why": reason} for folder, reason in plan.kept],
    }
