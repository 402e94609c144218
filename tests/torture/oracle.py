"""What an onlooker says of a checkpoint's folder: the standard library alone, none of the code that is on trial."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

NAME = re.compile(r"step-(\d{10})")


@dataclass(frozen=True)
class Seen:
    """The checkpoints of a folder by step."""

    whole: dict[int, Path]
    damaged: dict[int, Path]

    @property
    def newest_whole(self) -> int:
        """0 where there is none."""
        return max(self.whole, default=0)


def look(checkpoints: Path) -> Seen:
    """Hash every byte of every checkpoint."""
    whole: dict[int, Path] = {}
    damaged: dict[int, Path] = {}
    for folder in sorted(checkpoints.iterdir()) if checkpoints.is_dir() else []:
        if match := NAME.fullmatch(folder.name):
            (whole if _is_whole(folder, int(match[1])) else damaged)[int(match[1])] = folder
    return Seen(whole, damaged)


def _is_whole(folder: Path, step: int) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        content = {key: manifest[key] for key in ("kind", "parents", "files", "facts")}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if hashlib.sha256(canonical.encode()).hexdigest() != manifest["id"] or manifest["facts"]["step"] != step:
            return False
        return all(
            hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest() == file["sha256"]
            for file in manifest["files"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
