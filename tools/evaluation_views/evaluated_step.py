"""The evaluated checkpoints that people name to compare them: RUN@STEP, RUN@best, RUN, or a folder in evals/."""

import os
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.evaluations.best import referred_folder
from megatron_patches.artefacts.evaluations.shelf import (
    Evaluation,
    evaluation_folder,
    is_sealed,
    list_evaluations,
    read_evaluation,
)
from megatron_patches.artefacts.folders import parse_checkpoint_name, step_of
from megatron_patches.artefacts.manifest import MANIFEST, refuse_invalid, verify_files
from megatron_patches.artefacts.reference import parse_reference
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.errors import Damaged, Missing, Refused, listed
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.printable import printable
from tools.run_files.checkpoint_reference import find_run_directory

_SHOWN = 12


@dataclass(frozen=True)
class EvaluatedStep:
    """One of the two that are compared: the evaluation of a checkpoint, whole."""

    run: RunFolder
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """RUN@STEP, or the folder's path where it is not the one that this means."""
        usual = evaluation_folder(self.run, self.evaluation.step) == self.evaluation.folder
        return f"{self.run.name}@{self.evaluation.step}" if usual else str(self.evaluation.folder)

    @property
    def tokens(self) -> int | None:
        """That the model was trained on."""
        return next((result.tokens for result in self.evaluation.results.values()), None)


def find_evaluated_step(text: str, invalid: bool) -> EvaluatedStep:
    """The evaluation that a reference names; of a run that of its latest step.

    Args:
        invalid: take one too that is marked invalid.

    Raises:
        Missing: there is none.
        Damaged: a file is not what was written.
        Refused: it is marked invalid, or was never sealed.
    """
    folder = Path(text)
    if os.sep in text and is_folder(folder) and folder.absolute().parent.name == EVALS:
        folder = folder.absolute()
        found = EvaluatedStep(RunFolder(folder.parents[1]), _read(folder))
    else:
        reference = None if os.sep in text and is_folder(folder) else parse_reference(text)
        run = find_run_directory(reference.run if reference else text)
        if reference is None:
            found = EvaluatedStep(run, _latest(run, invalid))
        else:
            step = step_of(referred_folder(run, reference)) if reference.chosen else reference.step
            assert step is not None
            if not is_folder(evaluation_folder(run, step)):
                raise Missing(f"step {step} of {printable(run.name)} was not evaluated; {_evaluated(run)}")
            found = EvaluatedStep(run, _read(evaluation_folder(run, step)))
    _check(found.evaluation, invalid)
    return found


def _latest(run: RunFolder, invalid: bool) -> Evaluation:
    usable = [each for each in list_evaluations(run, []) if invalid or not each.is_invalid]
    if not usable:
        raise Missing(f"{printable(run.path)} has no valid evaluation: {_evaluated(run)}")
    return _read(usable[-1].folder)


def _evaluated(run: RunFolder) -> str:
    steps = [str(each.step) for each in list_evaluations(run, [])]
    if not steps:
        return f"no step was; evaluate one: tools/evals run {printable(run.name)} --steps last --tasks ..."
    more = f" and {len(steps) - _SHOWN} earlier ones" if len(steps) > _SHOWN else ""
    return f"evaluated: {', '.join(steps[-_SHOWN:])}{more}"


def _read(folder: Path) -> Evaluation:
    name = parse_checkpoint_name(folder.name.partition(".")[0])
    if name is None or name.content != "full":
        raise Refused(f"{printable(folder)} is no evaluation: name a folder such as runs/NAME/evals/step-0000001000")
    problems: list[str] = []
    found = read_evaluation(folder, problems)
    if problems:
        raise Damaged(listed(problems))
    return found


def _check(evaluation: Evaluation, invalid: bool) -> None:
    """Raises where the evaluation must not be used."""
    manifest, shown = evaluation.manifest, printable(evaluation.folder)
    if manifest is None or not is_sealed(evaluation):
        raise Refused(
            f"{shown} holds results that its {MANIFEST} does not name: an evaluation is writing there, or was ended; "
            "evaluate the step again, which seals it"
        )
    if not invalid:
        way = "accept it with --invalid, or take the mark back: tools/inventory revalidate"
        refuse_invalid(manifest, evaluation.folder / MANIFEST, way)
    if problems := verify_files(manifest, evaluation.folder, hashes=True):
        raise Damaged(f"{listed(problems)}. Evaluate the step again")
    if not evaluation.results:
        raise Missing(f"{shown} holds no result: evaluate the step again")
