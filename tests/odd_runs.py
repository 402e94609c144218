"""Folders of runs as disks, killed processes and people leave them: one thing is wrong with each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.manifest import FileRecord, build_manifest, write_manifest
from megatron_patches.events.writing import EventWriter
from tests.small_artefacts import make_checkpoint

DEEP = "[" * 5000 + "]" * 5000
DEEPEST_PARSED = "[" * 900 + r'"\ud800"' + "]" * 900
"""Python's parser takes it, and its printer does not"""
CONTROL = "\x1b]52;c;ZXZpbA==\x07"
TIME = "2026-11-28T00:00:00+00:00"


def make_run(runs: Path, name: str, steps: int = 20, loss: float = 3.5) -> Path:
    """A run that was launched, validated, saved at its last step and finished."""
    folder = runs / name
    (folder / "launches" / "0001").mkdir(parents=True)
    writer = EventWriter(folder / "events", "0001", "rank0")
    writer.write("start", step=0)
    writer.write("step", step=steps, tokens=128 * steps, loss=loss, seconds=1.0)
    writer.write("validation", step=steps, loss=loss)
    writer.write("end", step=steps, outcome="finished")
    writer.close()
    make_checkpoint(runs, steps, run=name, size=50, validation_loss=loss)
    return folder


def add_event(folder: Path, line: str | bytes) -> None:
    """One more line, whole, in the file of the last launch."""
    with (folder / "events" / "0001-rank0.jsonl").open("ab") as file:
        file.write((line if isinstance(line, bytes) else line.encode("utf-8", "surrogatepass")) + b"\n")


def _event(line: str | bytes) -> Callable[[Path], None]:
    return lambda folder: add_event(folder, line)


def _text(place: str, content: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    return write


def _pipe(place: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def _file_for_folder(place: str) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        if (folder / place).exists():
            (folder / place).rename(folder / f"{place}-away")
        (folder / place).write_bytes(b"")

    return replace


def _manifest(**changes: Any) -> Callable[[Path], None]:
    """Changes keys of the checkpoint's manifest, those of `facts` under their names with `facts_` before them."""

    def change(folder: Path) -> None:
        path = next((folder / "checkpoints").glob("*/manifest.json"))
        content = json.loads(path.read_bytes())
        for key, value in changes.items():
            target = content["facts"] if key.startswith("facts_") else content
            target[key.removeprefix("facts_")] = value
        path.write_text(json.dumps(content))

    return change


def _sparse(place: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, 3 << 30)

    return make


_STEP = f'{{"kind": "step", "time": "{TIME}", "step": '
_SAVED = "checkpoints/step-0000000020"
FAULTS: dict[str, Callable[[Path], object]] = {
    "event-no-json": _event("{"),
    "event-step-huge": _event(_STEP + "1" + "0" * 30 + "}"),
    "event-step-5000-digits": _event(_STEP + "1" * 5000 + "}"),
    "event-step-text": _event(_STEP + '"٣"}'),
    "event-step-missing": _event(f'{{"kind": "validation", "time": "{TIME}", "loss": 1.0}}'),
    "event-deep": _event(f'{{"kind": "step", "time": "{TIME}", "step": 1, "x": {DEEP}}}'),
    "event-deep-step": _event(f"{_STEP}{DEEPEST_PARSED}}}"),
    "event-no-time": _event('{"kind": "step", "step": 1}'),
    "event-odd-time": _event('{"kind": "step", "time": "yesterday", "step": 1}'),
    "event-time-year-1": _event('{"kind": "step", "time": "0001-01-01T00:00:00", "step": -1}'),
    "event-loss-list": _event(f'{{"kind": "validation", "time": "{TIME}", "step": 1, "loss": []}}'),
    "event-loss-huge": _event(f'{{"kind": "validation", "time": "{TIME}", "step": 1, "loss": 1{"0" * 400}}}'),
    "event-end-odd": _event(f'{{"kind": "end", "time": "{TIME}", "step": 1}}'),
    "event-failure-odd": _event(f'{{"kind": "failure", "time": "{TIME}", "step": 1, "text": null}}'),
    "event-list": _event("[]"),
    "event-no-utf8": _event(b'{"kind": "step\xff"}'),
    "event-long-line": _event("x" * (5 << 20)),
    "events-pipe": _pipe("events/0001-rank1.jsonl"),
    "events-is-file": _file_for_folder("events"),
    "events-holds-folder": lambda folder: (folder / "events" / "0001-rank1.jsonl").mkdir(),
    "events-sparse": _sparse("events/0001-rank1.jsonl"),
    "note-damaged": _text("annotations/000001-abcdef.json", "{"),
    "note-deep": _text("annotations/000001-abcdef.json", DEEP),
    "note-deep-surrogate": _text("annotations/000001-abcdef.json", f'{{"word": {DEEPEST_PARSED}, "text": ""}}'),
    "note-odd-word": _text("annotations/000001-abcdef.json", '{"word": "shout", "text": ""}'),
    "note-odd-types": _text("annotations/000001-abcdef.json", '{"word": "note", "text": [1]}'),
    "note-odd-value": _text("annotations/000001-abcdef.json", '{"word": "gold", "text": "", "value": "x"}'),
    "note-huge": _sparse("annotations/000001-abcdef.json"),
    "note-pipe": _pipe("annotations/000001-abcdef.json"),
    "annotations-is-file": _file_for_folder("annotations"),
    "copies-damaged": _text("copies/host-1-abcdef.jsonl", "{}\n"),
    "copies-sparse": _sparse("copies/host-1-abcdef.jsonl"),
    "copies-pipe": _pipe("copies/host-1-abcdef.jsonl"),
    "copies-is-file": _file_for_folder("copies"),
    "manifest-no-json": _text(f"{_SAVED}/manifest.json", "{"),
    "manifest-deep": _text(f"{_SAVED}/manifest.json", DEEP),
    "manifest-pipe": _pipe(f"{_SAVED}/manifest.json"),
    "manifest-step-huge": _manifest(facts_step=10**30),
    "manifest-step-negative": _manifest(facts_step=-1),
    "manifest-tokens-text": _manifest(facts_tokens="many"),
    "manifest-run-above": _manifest(facts_run="../../elsewhere"),
    "manifest-run-control": _manifest(facts_run=CONTROL),
    "manifest-size-huge": _manifest(files=[{"path": "a", "size": 2**63, "sha256": ""}]),
    "manifest-size-negative": _manifest(files=[{"path": "a", "size": -1, "sha256": ""}]),
    "manifest-files-odd": _manifest(files=[1]),
    "manifest-parents-odd": _manifest(parents=[1]),
    "manifest-status-odd": _manifest(status=[]),
    "manifest-reason-odd": _manifest(status={"state": "invalid", "reason": 5}),
    "manifest-created-odd": _manifest(created=None),
    "config-damaged": _text("config.yaml", "a: ["),
    "config-pipe": _pipe("config.yaml"),
    "config-no-utf8": _text("config.yaml", b"\xff"),
    "launches-is-file": _file_for_folder("launches"),
}
"""by name of the run that has it"""


def _long_path(folder: Path) -> None:
    """A manifest that is in order and lists a file whose path is too long once its folder is before it."""
    file = FileRecord(path="/".join(["x" * 250] * 16), size=1, sha256="0" * 64)
    manifest = build_manifest("checkpoint", [file], {"run": folder.name, "step": 30}, (), "made by a test")
    (folder / "checkpoints" / "step-0000000030").mkdir()
    write_manifest(folder / "checkpoints" / "step-0000000030" / "manifest.json", manifest)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "fine-failure-empty": _event(f'{{"kind": "failure", "time": "{TIME}", "step": 1, "text": ""}}'),
    "fine-surrogate": _event(f'{{"kind": "message", "time": "{TIME}", "text": "\\ud800"}}'),
    "fine-control": _event(
        f'{{"kind": "failure", "time": "{TIME}", "step": 1, "text": "\\u001b]52;c;x\\u0007 [bold]"}}'
    ),
    "fine-note": _text(
        "annotations/000001-abcdef.json",
        json.dumps({"word": "note", "text": f"[bold]{CONTROL}\ud800\n  gold      forged", "by": CONTROL}),
    ),
    "fine-metrics": _manifest(
        facts_metrics={
            "x" + CONTROL: 1.0,
            "null\0": 2.0,
            'quoted"': 3.0,
            "big": 10**400,
            "list": [1],
            "deep": {"a": {}},
        }
    ),
    "fine-logging": _text("config.yaml", "logging: [1]"),
    "fine-launch-odd": lambda folder: (folder / "launches" / "99x").mkdir(),
    "fine-launch-gone": lambda folder: (folder / "launches" / "0002").symlink_to(folder / "gone"),
    "fine-failure-damaged": lambda folder: (
        add_event(folder, f"{_STEP}20}}"),  # it did not end
        _text("launches/0001/failure.json", "[" * 10_000)(folder),
    ),
    "fine-long-path": _long_path,
    "fine-torn": _text("copies/host-1-abcdef.jsonl", '{"id"'),
}
"""odd, and read all the same"""

ODD_NAMES = (b"not-utf8-\xff", b"-x", b"control-\x1b]0;x\x07", b"ends.", b"new\nline", b"at@5", "rtl-\u202e".encode())
"""folders of runs that no run can be called by"""


def make_odd_runs(runs: Path, good: dict[str, float]) -> None:
    """All of them, among good ones with these losses."""
    for name, loss in good.items():
        make_run(runs, name, loss=loss)
    for name, spoil in {**FAULTS, **HARMLESS}.items():
        spoil(make_run(runs, name))
    for raw in ODD_NAMES:
        Path(os.fsdecode(bytes(runs) + b"/" + raw)).mkdir()
