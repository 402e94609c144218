"""A folder of transformers that `init_from` names, imported by the launch before its ranks start; torch-free
until then."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.printable import printable, storable
from megatron_patches.launch.init_from.resolution import StartingPoint
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.import_plan import ImportPlan
from megatron_patches.transformers_exchange.kept_imports import content_key, is_finished, place_of


def with_imported_weights(start: StartingPoint, config: RunConfig) -> StartingPoint:
    """A pending starting point with its folder imported, in the run's `imports/`, where later launches find it.

    People hear of it on stderr: it may take minutes.

    Raises:
        NotEqual: what was imported does not compute what the folder does.
        Damaged: the folder is shorter than its headers say.
        Missing: transformers, with which the card compares, is not installed.
        TrainyardError: it cannot be written. Nothing is left behind in any of these cases.
    """
    plan = start.pending
    assert plan is not None, "it is not pending"
    from megatron_patches.transformers_exchange.importing import require_transformers

    require_transformers()
    target = place_of(content_key(plan), config)
    manifest = read_manifest(target / MANIFEST) if is_finished(target) else _imported(plan, target, config)
    weights = replace(start.weights, id=manifest.id, folder=str(target.resolve()))
    line = f"{plan.described}, imported with a card ({manifest.id[:12]}): {printable(target)}"
    return StartingPoint(weights, [line, *start.lines[1:]])


def _imported(plan: ImportPlan, target: Path, config: RunConfig) -> Manifest:
    """The manifest of what this launch imports, or of what another one put there meanwhile: it has the same content."""
    from megatron_patches.transformers_exchange.importing import CardRequest, import_transformers

    command = storable(shlex.join(["tools/import-hf", str(plan.found.folder.path), config.name]))
    print(f"importing {plan.described} to {printable(target)}", file=sys.stderr, flush=True)
    try:
        done = import_transformers(plan, target, CardRequest(command))
    except OSError as error:
        raise TrainyardError(
            f"{printable(target)}: cannot be written ({error}); make room, or export TRAINYARD_RUNS=FOLDER names "
            "another place for runs"
        ) from error
    except Refused:
        if not is_finished(target):
            raise
        return read_manifest(target / MANIFEST)
    for line in done.card.told():
        print(printable(line), file=sys.stderr)
    return done.manifest
