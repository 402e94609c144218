"""Whether a run may continue from what lies in its directory; asked before anything starts. Torch-free."""

from math import isclose
from typing import Any

from data_tools.errors import TrainyardError
from data_tools.manifest import Manifest
from data_tools.run_data import RunData
from megatron_patches.checkpoint.folders import inspect, list_checkpoints
from megatron_patches.checkpoint.identity import differences, run_identity
from megatron_patches.run_config import RunConfig
from megatron_patches.run_directory import CHECKOUT, RunDirectory


def check_resume(config: RunConfig, directory: RunDirectory) -> int:
    """Refuse a checkpoint of another run, and a schedule that would make the learning rate jump.

    Every checkpoint whose manifest can be read is looked at, since a resume may fall back to any of them. Returns the
    samples that the newest has consumed, 0 where there is none.

    Raises:
        TrainyardError: with what differs and the ways out.
    """
    folders = list_checkpoints(directory.checkpoints)
    manifests = [
        (folder, manifest) for folder in folders if (manifest := inspect(folder, config.data.allow_invalid).manifest)
    ]
    if not manifests:
        return 0
    data = RunData(config.data, CHECKOUT, config.lengths)
    wanted = run_identity(config, data.dataset_id, data.tokenizer_id)
    for folder, manifest in manifests:
        _check_identity(manifest, wanted, config, str(folder))
    newest, manifest = manifests[0]
    _check_length(manifest, config, str(newest))
    _check_learning_rate(manifest, config, str(newest))
    samples = manifest.facts["samples"]
    assert isinstance(samples, int)
    return samples


def _check_identity(manifest: Manifest, wanted: dict[str, Any], config: RunConfig, folder: str) -> None:
    saved = manifest.facts.get("identity")
    found = differences(saved if isinstance(saved, dict) else {}, wanted, config)
    if found:
        raise TrainyardError(
            f"{folder} is a checkpoint of another run: {'; '.join(found)}. Restore these settings to continue it, "
            "start a new run under another name (tools/runs new), or move the run directory away to start over"
        )


def _check_length(manifest: Manifest, config: RunConfig, folder: str) -> None:
    step, steps, unit = manifest.facts["step"], config.timetable.steps, config.training.length_unit
    assert isinstance(step, int)
    if step > steps:
        raise TrainyardError(
            f"{folder} is beyond the end of the run, which has {steps} steps. Set training.{unit} to "
            f"{config.timetable.position(step, unit)} or more (what a launch was given on its command line must be "
            "given again, or written into the YAML)"
        )


def _check_learning_rate(manifest: Manifest, config: RunConfig, folder: str) -> None:
    """The rate of the last step, and the one that was planned to follow, are what this configuration plans there."""
    step, length = manifest.facts["step"], f"training.{config.training.length_unit}"
    assert isinstance(step, int)
    for at, planned in ((step, manifest.facts["learning_rate"]), (step + 1, manifest.facts["next_learning_rate"])):
        assert isinstance(planned, float)
        now = config.learning_rate(at)
        if not isclose(now, planned, rel_tol=1e-6, abs_tol=1e-12):
            raise TrainyardError(
                f"the learning rate would jump: {folder} planned {planned:.6g} for step {at}, the configuration gives "
                f"{now:.6g} there. Restore schedule, optimizer.learning_rate and {length} (set schedule.decay_end to "
                f"the old end where {length} grows), or start a new run under another name"
            )
