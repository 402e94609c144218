"""Whether an artefact is what its manifest says, byte for byte, and whether its lineage is in order."""

from dataclasses import dataclass

from megatron_patches.artefacts.inventory.artefact import Artefact, files_folder
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.lineage import ancestors
from megatron_patches.artefacts.manifest import read_manifest, verify_files
from megatron_patches.artefacts.marks import verify_and_mark
from megatron_patches.errors import Damaged, Missing, Refused


@dataclass(frozen=True)
class Verdict:
    """What a look at one artefact found."""

    artefact: Artefact
    problems: list[str]
    """a sentence each; empty when all is well"""
    note: str = ""
    """what could not be looked at, and why"""


def verify_artefact(catalogue: Catalogue, artefact: Artefact, hashes: bool = True) -> Verdict:
    """Checks the manifest's own hash, the files (every byte of them with `hashes`), and the parents.

    A checkpoint of a run here, read whole, is marked as verified or damaged.
    """
    try:
        manifest = read_manifest(artefact.manifest)
        folder = files_folder(artefact.folder)
        lineage = _lineage_problems(catalogue, artefact)
    except (Missing, Damaged, Refused) as error:
        return Verdict(artefact, [str(error)])
    problems = [f"marked invalid: {artefact.reason}"] if manifest.status.state == "invalid" else []
    if folder is None:
        return Verdict(artefact, problems + lineage, "only copies are left; `tools/inventory where` names them")
    if not folder.is_dir():
        return Verdict(artefact, [*problems, f"its folder {folder} is gone", *lineage])
    try:
        if hashes and artefact.kind == "checkpoint" and artefact.whereabouts == "here":
            problems += verify_and_mark(folder, manifest, "tools/inventory verify")
        else:
            problems += verify_files(manifest, folder, hashes)
    except OSError as error:  # a file that may not be read, or whose name no file system takes
        problems.append(f"cannot be read: {error}")
    return Verdict(artefact, problems + lineage)


def _lineage_problems(catalogue: Catalogue, artefact: Artefact) -> list[str]:
    if artefact.state == "invalid":
        return []
    return [
        f"came from {above.artefact.name} ({above.id[:12]}), which is invalid: {above.artefact.reason}"
        for above in ancestors(catalogue, artefact)
        if above.artefact and above.artefact.state == "invalid"
    ]
