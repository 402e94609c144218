"""A run's evaluations in Weights & Biases: a record of its own, `<the run's id>-evals`, in the group of the run's.

A record of W&B takes steps in ascending order alone, and evaluations come in any. Offline the whole record is written
again, and the one before goes. Online the metrics have a step of their own, and what was sent once is not sent again.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.callbacks.logging_config import WandbConfig
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import shortened

Curves = Mapping[int, Mapping[str, float]]
"""by step, the metrics by their names: evals/hellaswag.acc_norm"""
_SHOWN = "shown.json"
"""in an offline record's folder: the digest of what it shows"""
_STEP = f"{EVALS}/step"
_BYTES = 64 << 20


def publish_to_wandb(run: RunFolder, curves: Curves, digest: str) -> list[str]:
    """Brings the record up to date, where the run logs to W&B and its package is installed.

    Args:
        digest: of the curves.

    Returns:
        A sentence where that failed; wandb's errors have no base of their own, and none of them ends an evaluation.
    """
    try:
        config = _config(run)
        if config is None:
            return []
        import wandb  # an extra

        identity = f"{read_manifest(run.manifest).facts['wandb_id']}-{EVALS}"
        if config[0].mode == "offline":
            _write_offline(wandb, run, config, identity, curves, digest)
        else:
            _send(wandb, run, config, identity, curves)
    except ImportError:
        return []
    except Exception as error:  # noqa: BLE001 - see above
        return [
            f"Weights & Biases does not show the evaluations of {run.name}: {type(error).__name__}: "
            f"{shortened(error, 300)}"
        ]
    return []


def _config(run: RunFolder) -> tuple[WandbConfig, str] | None:
    """How the run logs to W&B, and its group there; None where it does not."""
    try:
        resolved = read_yaml(run.config)
    except Missing:
        return None
    logging = resolved.get("logging")
    wandb = logging.get("wandb") if isinstance(logging, dict) else None
    if wandb is None:
        return None
    try:
        config = WandbConfig.model_validate(wandb)
    except ValidationError:
        raise Damaged(f"{run.config} does not say how the run logs: launch it again, or restore the file") from None
    return config, config.group or str(resolved.get("family") or "")


def _write_offline(
    wandb: Any, run: RunFolder, config: tuple[WandbConfig, str], identity: str, curves: Curves, digest: str
) -> None:
    before = sorted((run.path / "wandb").glob(f"offline-run-*-{identity}"))
    if (not curves and not before) or [_shown(folder) for folder in before] == [digest]:
        return
    record = _begin(wandb, run, config, identity)
    own = Path(record.settings.sync_dir)
    try:
        for step, numbers in sorted(curves.items()):
            record.log({_STEP: step, **numbers}, step=step)
    finally:
        _finish(wandb, record)
    write_atomically(own / _SHOWN, json.dumps({"digest": digest}).encode())
    for folder in before:
        if folder != own:
            folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)


def _shown(folder: Path) -> object:
    try:
        return parse_object(read_bounded(folder / _SHOWN, _BYTES), _SHOWN).get("digest")
    except TrainyardError:
        return None  # of a process that was killed: it is written again


def _send(wandb: Any, run: RunFolder, config: tuple[WandbConfig, str], identity: str, curves: Curves) -> None:
    path = run.path / "wandb" / f"{identity}.json"
    try:
        sent = parse_object(read_bounded(path, _BYTES), str(path))
    except Missing:
        sent = {}
    waiting = {step: numbers for step, numbers in sorted(curves.items()) if sent.get(str(step)) != numbers}
    if not waiting:
        return
    record = _begin(wandb, run, config, identity)
    try:
        for step, numbers in waiting.items():
            record.log({_STEP: step, **numbers})
    finally:
        _finish(wandb, record)
    path.parent.mkdir(exist_ok=True)
    sent |= {str(step): dict(numbers) for step, numbers in waiting.items()}
    write_atomically(path, json.dumps(sent).encode())


def _begin(wandb: Any, run: RunFolder, config: tuple[WandbConfig, str], identity: str) -> Any:
    settings, group = config
    # of 25 lines a record the warnings and errors stay; only these settings, made before `init`, leave out the rest
    wandb.setup(wandb.Settings(show_info=False))
    record = wandb.init(
        dir=str(run.path),
        project=settings.project,
        group=group or None,
        name=f"{run.name} evaluations",
        job_type="evaluation",
        id=identity,
        resume=None if settings.mode == "offline" else "allow",
        mode=settings.mode,
        settings=wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True),
    )
    record.define_metric(_STEP, hidden=True)
    record.define_metric(f"{EVALS}/*", step_metric=_STEP)
    return record


def _finish(wandb: Any, record: Any) -> None:
    try:
        record.finish()
    finally:
        wandb.teardown()  # else it is done when the process ends, where a failure is a traceback
