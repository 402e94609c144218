"""A folder of transformers that `init_from` names, imported by the launch before its ranks start; torch-free
until then."""

import sys
from dataclasses import replace

from megatron_patches.errors import TrainyardError
from megatron_patches.launch.init_from.resolution import StartingPoint
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.kept_imports import content_key, place_of


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
    from megatron_patches.transformers_exchange.importing import (
        CardRequest,
        import_transformers,
        require_transformers,
    )

    require_transformers()
    target = place_of(content_key(plan), config)
    print(f"importing {plan.described} to {target}", file=sys.stderr, flush=True)
    try:
        done = import_transformers(plan, target, CardRequest(f"tools/import-hf {plan.found.folder.path} {config.name}"))
    except OSError as error:
        raise TrainyardError(
            f"{target}: cannot be written ({error}); make room, or export TRAINYARD_RUNS=FOLDER names another place "
            "for runs"
        ) from error
    for line in done.card.told():
        print(line, file=sys.stderr)
    weights = replace(start.weights, id=done.manifest.id, folder=str(target.resolve()))
    line = f"{plan.described}, imported with a card ({done.manifest.id[:12]}): {target}"
    return StartingPoint(weights, [line, *start.lines[1:]])
