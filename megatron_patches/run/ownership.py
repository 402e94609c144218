"""Stand-in: who owns a run. Another branch has the real one, with these names."""

import shutil
from collections.abc import Mapping

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import fsync_folder, temporary_path, write_atomically
from megatron_patches.run.run_directory import Launch


def refuse_living_owner(run: RunFolder) -> None:
    """Raise TrainyardError where a launch of the run is at work."""


def claim_launch(run: RunFolder, files: Mapping[str, bytes]) -> Launch:
    """The run's next launch, its folder made with these files in it by one rename."""
    run.launches.mkdir(parents=True, exist_ok=True)
    folder = temporary_path(run.launches / "launch")
    folder.mkdir()
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
        number = max((int(path.name) for path in run.launches.iterdir() if path.name.isdecimal()), default=0) + 1
        while True:
            try:
                folder.rename(run.launches / f"{number:04d}")
                break
            except OSError:
                if not (run.launches / f"{number:04d}").exists():
                    raise
                number += 1
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    fsync_folder(run.launches)
    return Launch(run.launches / f"{number:04d}")
