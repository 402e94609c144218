"""What people call runs and artefacts: a run's name or its beginning, run@step, the beginning of an id, a folder."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.errors import Missing, TrainyardError

_SHOWN = 12
_ID = re.compile(r"[0-9a-f]{6,64}")


def resolve_run(text: str, known: Sequence[str]) -> str:
    """The one run that a name, or the beginning of one, means.

    Raises:
        Missing: there is none; the nearest are named.
        TrainyardError: it may be any of several, which are named.
    """
    if text in known:
        return text
    candidates = [name for name in known if name.startswith(text)] or [name for name in known if text in name]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise TrainyardError(f"{text} may be any of {_listed(candidates)}; say which")
    nearest = difflib.get_close_matches(text, list(known), n=3, cutoff=0.3)
    offer = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise Missing(f"there is no run {text}{offer}; `tools/inventory list` shows all")


def resolve_artefact(text: str, catalogue: Catalogue) -> Artefact:
    """The one artefact that RUN@STEP, RUN@STEP/weights, the beginning of an id, a folder or a dataset's name means.

    Raises:
        Missing: there is none; of a step the nearest are named.
        TrainyardError: it may be any of several, which are named, or is not formed as it must be.
    """
    if "@" in text:
        return _of_step(text, catalogue)
    found = _by_path(text, catalogue)
    if not found and _ID.fullmatch(text):
        found = catalogue.artefacts("id >= ? AND id < ?", [text, text + "g"], "ORDER BY whereabouts DESC, manifest")
    if not found:
        found = catalogue.artefacts("manifest LIKE ?", [f"%/{text}.{MANIFEST}"])
    if not found:
        found = catalogue.artefacts("manifest LIKE ? AND kind != 'run'", [f"%/{text}/{MANIFEST}"])
    if not found:
        found = catalogue.artefacts("kind = 'run' AND run = ?", [text])
    if not found:
        raise Missing(
            f"nothing is known of {text}: give RUN@STEP, the beginning of an id (6 digits or more), a folder, or a "
            "dataset's name; `tools/inventory find` searches"
        )
    if len({each.id for each in found}) > 1:
        raise TrainyardError(f"{text} may be any of {_listed([_described(each) for each in found])}; say which")
    return found[0]


def _of_step(text: str, catalogue: Catalogue) -> Artefact:
    name, _, rest = text.partition("@")
    step, _, part = rest.partition("/")
    run = resolve_run(name, catalogue.run_names())
    if not step.isdecimal() or part not in ("", "weights"):
        raise TrainyardError(f"{text}: behind @ goes a step, such as {run}@1000, or {run}@1000/weights")
    found = catalogue.artefacts("run = ? AND kind = 'checkpoint' AND step = ?", [run, int(step)])
    if part:
        found = [each for each in found if each.content == "weights"]
    found.sort(key=lambda each: (each.content != "full", each.whereabouts != "here"))
    if not found:
        rows = catalogue.rows("SELECT DISTINCT step FROM artefacts WHERE run = ? AND kind = 'checkpoint'", [run])
        steps = sorted((each for (each,) in rows if each is not None), key=lambda each: abs(each - int(step)))
        offer = f"nearest: {', '.join(map(str, steps[:5]))}" if steps else "it has none"
        raise Missing(f"{run} has no checkpoint of step {rest}; {offer}")
    return found[0]


def _by_path(text: str, catalogue: Catalogue) -> list[Artefact]:
    if "/" not in text and not Path(text).exists():
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
