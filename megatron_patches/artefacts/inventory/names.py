"""What people call runs and artefacts: a run's name or its beginning, run@step, the beginning of an id, a folder."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.evaluations.best import referred_folder
from megatron_patches.artefacts.folders import is_replaced
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.reference import CheckpointReference, parse_reference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.printable import shortened

_SHOWN = 12
_ID = re.compile(r"[0-9a-f]{6,64}")
_ENDS_SO = "substr(manifest, -length(?)) = ?"


def resolve_run(text: str, known: Sequence[str]) -> str:
    """The one run that a name, or the beginning of one, means.

    Raises:
        Missing: there is none; the nearest are named.
        TrainyardError: it may be any of several, which are named.
    """
    if text in known:
        return text
    if not text:
        raise TrainyardError("the name of a run is empty; `tools/inventory list` shows all")
    candidates = [name for name in known if name.startswith(text)] or [name for name in known if text in name]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise TrainyardError(f"{shortened(text)} may be any of {_listed(candidates)}; say which")
    nearest = difflib.get_close_matches(text, list(known), n=3, cutoff=0.3)
    offer = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise Missing(f"there is no run {shortened(text)}{offer}; `tools/inventory list` shows all")


def resolve_artefact(text: str, catalogue: Catalogue) -> Artefact:
    """The one artefact that RUN@STEP, RUN@STEP/weights, RUN@STEP/replaced-N, RUN@gold, RUN@best, RUN@best:TASK.METRIC,
    RUN/NAME of an export, RUN/evals/NAME, the beginning of an id, a folder or a dataset's name means.

    Raises:
        Missing: there is none; of a step the nearest are named.
        TrainyardError: it may be any of several, which are named, or is not formed as it must be.
    """
    found = _by_path(text, catalogue) or _replaced(text, catalogue)
    if not found and (reference := parse_reference(text)):
        return _referred(reference, catalogue)
    if not found and _ID.fullmatch(text):
        found = catalogue.artefacts("id >= ? AND id < ?", [text, text + "g"], "ORDER BY whereabouts DESC, manifest")
    if not found:
        found = catalogue.artefacts(_ENDS_SO, [f"/{text}.{MANIFEST}"] * 2)
    if not found:
        found = catalogue.artefacts(f"{_ENDS_SO} AND kind != 'run'", [f"/{text}/{MANIFEST}"] * 2)
    if not found:
        found = [each for each in catalogue.artefacts("run = ?", [text.rpartition("/")[0]]) if each.name == text]
    if not found:
        found = catalogue.artefacts("kind = 'run' AND run = ?", [text])
    if not found:
        raise Missing(
            f"nothing is known of {shortened(text)}: give RUN@STEP, the beginning of an id (6 digits or more), a "
            "folder, or a dataset's name; `tools/inventory find` searches"
        )
    if len({each.id for each in found}) > 1:
        raise TrainyardError(f"{text} may be any of {_listed([_described(each) for each in found])}; say which")
    return found[0]


def _referred(reference: CheckpointReference, catalogue: Catalogue) -> Artefact:
    run = resolve_run(reference.run, catalogue.run_names())
    if reference.step is not None:
        return _of_step(run, reference.step, reference.weights_only, catalogue)
    ((path,), *_) = catalogue.rows("SELECT path FROM folders WHERE kind = 'run' AND run = ?", [run])
    manifest = referred_folder(RunFolder(Path(path)), reference) / MANIFEST
    return catalogue.artefacts("manifest = ?", [str(manifest)])[0]


def _of_step(run: str, step: int, weights_only: bool, catalogue: Catalogue) -> Artefact:
    found = catalogue.artefacts("run = ? AND kind = 'checkpoint' AND step = ?", [run, step])
    if weights_only:
        found = [each for each in found if each.content == "weights"]
    found.sort(key=lambda each: (each.content != "full", is_replaced(each.folder.name), each.whereabouts != "here"))
    if not found:
        rows = catalogue.rows("SELECT DISTINCT step FROM artefacts WHERE run = ? AND kind = 'checkpoint'", [run])
        steps = sorted((each for (each,) in rows if each is not None), key=lambda each: abs(each - step))
        offer = f"nearest: {', '.join(map(str, steps[:5]))}" if steps else "it has none"
        if weights_only and step in steps:
            offer = f"the full one is {run}@{step}"
        alone = " of weights alone" if weights_only else ""
        raise Missing(f"{run} has no checkpoint{alone} of step {step}; {offer}")
    return found[0]


def _replaced(text: str, catalogue: Catalogue) -> list[Artefact]:
    """RUN@STEP/replaced-N: what was left behind, and whose step was saved again."""
    before, _, again = text.rpartition("/")
    reference = parse_reference(before) if is_replaced(f".{again}") else None
    if reference is None:
        return []
    run = resolve_run(reference.run, catalogue.run_names())
    found = catalogue.artefacts("run = ? AND kind = 'checkpoint' AND step = ?", [run, reference.step])
    return [each for each in found if each.name == f"{run}@{before.rpartition('@')[2]}/{again}"]


def _by_path(text: str, catalogue: Catalogue) -> list[Artefact]:
    if "/" not in text and not is_folder(Path(text)) and not text.endswith(MANIFEST):
        return []
    path = Path(text).absolute()
    for candidate in (path, path / MANIFEST, path.with_name(f"{path.name}.{MANIFEST}")):
        if found := catalogue.artefacts("manifest = ?", [str(candidate)]):
            return found
    return []


def _described(artefact: Artefact) -> str:
    return f"{artefact.name} ({artefact.kind} {artefact.id[:12]})"


def _listed(candidates: Sequence[str]) -> str:
    shown = ", ".join(candidates[:_SHOWN])
    more = len(candidates) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
