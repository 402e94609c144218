"""Artefacts of a few bytes, whole with manifests, for tests of what finds and moves them."""

import random
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from megatron_patches.artefacts.manifest import FileRecord, Manifest, build_manifest, record_file, write_manifest

RUN = "tr900a-28K-small"


def make_artefact(
    folder: Path, kind: str, files: Mapping[str, bytes], facts: Mapping[str, JsonValue], parents: tuple[str, ...] = ()
) -> Manifest:
    """Writes files and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    records: list[FileRecord] = []
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        records.append(record_file(folder / name, folder))
    manifest = build_manifest(kind, records, dict(facts), parents, "made by a test")  # type: ignore[arg-type]
    write_manifest(folder / "manifest.json", manifest)
    return manifest


def make_checkpoint(
    runs: Path, step: int, run: str = RUN, parents: tuple[str, ...] = (), size: int = 2000, **facts: JsonValue
) -> Manifest:
    """A checkpoint of two ranks under `<runs>/<run>/checkpoints/`."""
    draw = random.Random(f"{run} {step}")
    names = [f"{part}-{rank:05d}.safetensors" for part in ("weights", "optimizer") for rank in range(2)]
    files = {name: draw.randbytes(size) for name in names}
    files |= {"config.yaml": b"why: tests\n", "trainer.json": b"{}\n"}
    known = {"run": run, "launch": "0001", "step": step, "samples": 8 * step, "tokens": 128 * step}
    layout: dict[str, JsonValue] = {"tensor": 2, "pipeline": 1, "data": 1, "zero_stage": 1}
    folder = runs / run / "checkpoints" / f"step-{step:010d}"
    return make_artefact(folder, "checkpoint", files, {**known, "layout": layout, **facts}, parents)
