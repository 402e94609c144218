"""Which checkpoints the rules give up: never the newest that was verified, never a pinned one."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.artefacts.annotations import Annotation, annotate
from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.folders import checkpoint_name, list_checkpoints
from megatron_patches.artefacts.manifest import MANIFEST, build_manifest, read_manifest, write_manifest
from megatron_patches.artefacts.marks import (
    damage_of,
    is_pinned,
    is_verified,
    mark_damaged,
    mark_verified,
    pin,
    pin_of,
    unpin,
    verification_of,
)
from megatron_patches.artefacts.retention import (
    CopiedRetention,
    KeptCheckpoint,
    known_checkpoints,
    reasons_to_stay,
    superfluous,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.artefacts.unfinished import delete_folder, remove_leftovers
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.errors import TrainyardError
from tests.small_artefacts import RUN, make_checkpoint


def checkpoint(step: int, **facts: object) -> KeptCheckpoint:
    known = {"ephemeral": False, "validation_loss": None, "pinned": False, "verified": False}
    return KeptCheckpoint(Path(checkpoint_name(step)), step, **{**known, **facts})  # type: ignore[arg-type]


def going(known: list[KeptCheckpoint], **rules: object) -> list[int]:
    return [each.step for each in superfluous(known, CheckpointConfig(every_steps=10, **rules))]  # type: ignore[arg-type]


TEN_TO_SIXTY = [checkpoint(step, verified=step == 60) for step in range(10, 70, 10)]


def test_all_stay_unless_the_rules_say_otherwise() -> None:
    assert going(TEN_TO_SIXTY) == []


def test_the_last_ones_stay() -> None:
    assert going(TEN_TO_SIXTY, keep_last=2) == [10, 20, 30, 40]
    assert going(TEN_TO_SIXTY, keep_last=9) == []


def test_multiples_stay() -> None:
    assert going(TEN_TO_SIXTY, keep_last=1, keep_every_steps=30) == [10, 20, 40, 50]


def test_the_best_stay() -> None:
    losses = {10: 3.0, 20: 2.0, 30: None, 40: float("nan"), 50: 2.5, 60: 9.0}
    known = [checkpoint(step, validation_loss=loss, verified=step == 60) for step, loss in losses.items()]
    assert going(known, keep_last=1, keep_best=2) == [10, 30, 40]


def test_pinned_ones_stay() -> None:
    known = [checkpoint(step, pinned=step == 20, verified=step == 60) for step in range(10, 70, 10)]
    assert going(known, keep_last=1) == [10, 30, 40, 50]


def test_gold_stays() -> None:
    known = [checkpoint(step, gold=step == 20, verified=step == 60) for step in range(10, 70, 10)]
    assert going(known, keep_last=1) == [10, 30, 40, 50]


def test_every_reason_is_told() -> None:
    known = [
        checkpoint(10, pinned=True, gold=True), checkpoint(20, gold=True), checkpoint(30), checkpoint(40),
        checkpoint(50, validation_loss=1.0), checkpoint(60), checkpoint(65, ephemeral=True),
        replace(checkpoint(40), folder=Path("weights"), content="weights"),
    ]  # fmt: skip
    told = reasons_to_stay(known, CopiedRetention(keep_last=1, keep_every_steps=40, keep_best=1))
    assert told == {
        Path(checkpoint_name(10)): "pinned",
        Path(checkpoint_name(20)): "gold",
        Path(checkpoint_name(40)): "step divides by 40",
        Path(checkpoint_name(50)): "one of the 1 of lowest validation loss",
        Path(checkpoint_name(60)): "one of the newest 1, from which the run resumes",
        Path(checkpoint_name(65)): "the newest, from which the run resumes",
        Path("weights"): "step divides by 40",
    }


def test_ephemeral_ones_go_with_the_next_verified_one() -> None:
    known = [checkpoint(5, ephemeral=True), checkpoint(10), checkpoint(15, ephemeral=True, verified=True)]
    assert going(known) == [5]
    assert going(known, keep_last=1) == [5], "the last permanent one stays beside it"


def test_saves_at_stops_take_no_regular_ones_place() -> None:
    """Of keep_last 3, three stops within 20 steps once removed the best-validated checkpoint."""
    regular = [checkpoint(step, validation_loss=loss) for step, loss in ((100, 2.0), (200, 2.1), (300, 2.2))]
    stops = [checkpoint(step, at_stop=True) for step in (305, 311, 320)]
    latest = replace(stops[-1], verified=True)
    assert going([*regular, *stops[:-1], latest], keep_last=3) == [305, 311]
    assert going([*regular, latest, checkpoint(400, verified=True)], keep_last=3) == [100, 320]


def test_a_stops_save_that_is_the_best_stays_beside_the_best_regular_one() -> None:
    known = [
        checkpoint(10, validation_loss=2.0), checkpoint(15, validation_loss=1.0, at_stop=True),
        checkpoint(17, validation_loss=3.0, at_stop=True), checkpoint(20), checkpoint(30, verified=True),
    ]  # fmt: skip
    assert going(known, keep_last=1, keep_best=1) == [17, 20]


saved_ones = st.lists(
    st.tuples(
        st.sampled_from(["interval", "ephemeral", "stop"]), st.none() | st.sampled_from([1.0, 2.0, 3.0]), st.booleans()
    ),
    min_size=1,
    max_size=25,
)


@given(saved_ones, st.integers(1, 3), st.integers(0, 2))
def test_any_sequence_of_saves_stops_and_validations(
    saves: list[tuple[str, float | None, bool]], last: int, best: int
) -> None:
    """Each save is read back and tidied behind; what regular ones are left does not depend on what lies between."""
    rules = CheckpointConfig(every_steps=10, keep_last=last, keep_best=best)

    def left(kinds: set[str]) -> list[KeptCheckpoint]:
        there: list[KeptCheckpoint] = []
        for step, (kind, loss, pinned) in enumerate(saves, start=1):
            if kind in kinds:
                made = checkpoint(
                    step, ephemeral=kind == "ephemeral", at_stop=kind == "stop", validation_loss=loss, pinned=pinned,
                    verified=True,
                )  # fmt: skip
                gone = superfluous([*there, made], rules)
                assert made not in gone, "the newest stays whatever it is"
                there = [each for each in [*there, made] if each not in gone]
        return there

    stay = left({"interval", "ephemeral", "stop"})
    assert [each for each in stay if each.regular] == [each for each in left({"interval"}) if each.regular]
    assert len([each for each in stay if each.regular]) >= min(last, sum(kind == "interval" for kind, *_ in saves))
    newest_regular = max((each.step for each in stay if each.regular), default=0)
    best_losses = sorted(loss for kind, loss, _ in saves if loss is not None and kind != "ephemeral")
    for each in stay:
        if each.at_stop and not each.pinned and each.step < newest_regular:
            assert each.validation_loss is not None and best and each.validation_loss <= best_losses[:best][-1]


@pytest.mark.parametrize(("reason", "stopped", "at_stop"), [
    ("stop", False, True), ("end", True, True), ("end", False, False), ("interval", True, False),
])  # fmt: skip
def test_what_was_saved_at_a_stop_is_known_also_of_earlier_versions(
    tmp_path: Path, reason: str, stopped: bool, at_stop: bool
) -> None:
    run = RunFolder(tmp_path)
    make(run.checkpoints, 10, reason=reason, launch="0001")
    (run.launches / "0001").mkdir(parents=True)
    if stopped:
        (run.launches / "0001" / "stopped").touch()
    assert [each.at_stop for each in known_checkpoints(run)] == [at_stop]


@pytest.mark.parametrize("launch", [None, 1, "../../elsewhere", "\0"])
def test_an_odd_launch_is_no_stop(tmp_path: Path, launch: object) -> None:
    make(RunFolder(tmp_path).checkpoints, 10, reason="end", launch=launch)
    assert [each.at_stop for each in known_checkpoints(RunFolder(tmp_path))] == [False]


@pytest.mark.parametrize("step", ["10", None, True, 11, -10, 10.0])
def test_a_checkpoint_of_another_step_than_its_name_says_counts_for_nothing(tmp_path: Path, step: object) -> None:
    folder = tmp_path / "checkpoints" / checkpoint_name(10)
    folder.mkdir(parents=True)
    write_manifest(folder / MANIFEST, build_manifest("checkpoint", files=[], facts={"step": step}))  # type: ignore[dict-item]
    assert known_checkpoints(RunFolder(tmp_path)) == []


def test_nothing_goes_before_a_newer_one_was_read_back() -> None:
    unverified = [checkpoint(step) for step in (10, 20, 30)]
    assert going(unverified, keep_last=1) == []
    assert going([checkpoint(10), checkpoint(20, verified=True), checkpoint(30)], keep_last=1) == [10]


known_ones = st.lists(
    st.builds(
        checkpoint,
        st.integers(1, 40),
        ephemeral=st.booleans(),
        validation_loss=st.none() | st.floats(),
        pinned=st.booleans(),
        gold=st.booleans(),
        verified=st.booleans(),
    ),
    unique_by=lambda each: each.step,
)


@given(known_ones, st.integers(1, 4), st.none() | st.just(20), st.integers(0, 3))
def test_the_newest_verified_and_the_pinned_never_go(
    known: list[KeptCheckpoint], last: int, every: int | None, best: int
) -> None:
    rules = CheckpointConfig(every_steps=10, keep_last=last, keep_every_steps=every, keep_best=best)
    gone = superfluous(known, rules)
    verified = [each.step for each in known if each.verified]
    assert not any(each.pinned or each.gold for each in gone)
    assert all(each.step < max(verified) for each in gone)
    stay = [each for each in known if each not in gone]
    assert superfluous(stay, rules) == [], "what stays once, stays"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"keep_best": 1}, "keep_best has no effect while all checkpoints stay"),
        ({"keep_every_steps": 20}, "keep_every_steps has no effect while all checkpoints stay"),
        ({"keep_last": 1, "keep_every_steps": 15}, "is no multiple of every_steps 10"),
        ({"ephemeral_every_steps": 10}, "is not below every_steps 10"),
        ({"weights_every_steps": 20}, "is a multiple of every_steps 10"),
    ],
)
def test_rules_without_effect_are_refused(settings: dict[str, int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CheckpointConfig(every_steps=10, **settings)  # type: ignore[arg-type]


def make(checkpoints: Path, step: int, **facts: object) -> Path:
    folder = checkpoints / checkpoint_name(step)
    folder.mkdir(parents=True)
    manifest = build_manifest("checkpoint", files=[], facts={"step": step, **facts})  # type: ignore[arg-type]
    write_manifest(folder / MANIFEST, manifest)
    return folder


def test_what_the_rules_go_by_is_read_from_the_folders(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    first, second = make(run.checkpoints, 10, reason="ephemeral"), make(run.checkpoints, 20, validation_loss=2.5)
    pin(first, "to look at")
    mark_verified(second, "a test")
    annotate(tmp_path, Annotation("gold", "best", read_manifest(second / MANIFEST).id))
    damaged = make(run.checkpoints, 30)
    (damaged / MANIFEST).write_text("{")
    mark_verified(make(run.checkpoints, 40), "a test")
    mark_damaged(run.checkpoints / checkpoint_name(40), "a bit is another one")
    assert known_checkpoints(run) == [
        KeptCheckpoint(second, 20, False, 2.5, pinned=False, verified=True, gold=True),
        KeptCheckpoint(first, 10, True, None, pinned=True, verified=False),
    ]


def test_what_was_left_behind_is_neither_counted_nor_deleted(tmp_path: Path) -> None:
    for step, launch in ((10, "0001"), (20, "0001"), (30, "0001"), (15, "0003")):
        make_checkpoint(tmp_path, step, launch=launch)
    run = RunFolder(tmp_path / RUN)
    (run.launches / "0003").mkdir(parents=True)
    record_beginning(run.launches / "0003", Beginning(3, 10, None))
    assert [each.step for each in known_checkpoints(run)] == [15, 10]
    mark_verified(run.checkpoints / checkpoint_name(15), "a test")
    assert [each.step for each in superfluous(known_checkpoints(run), CopiedRetention(keep_last=1))] == [10]


def test_marks_are_read_and_taken_back(tmp_path: Path) -> None:
    folder = make(tmp_path, 10)
    assert (pin_of(folder), verification_of(folder), is_pinned(folder)) == (None, None, False)
    pin(folder, "the one of the paper")
    mark = pin_of(folder)
    assert mark is not None and mark.reason == "the one of the paper" and mark.date.startswith("20")
    unpin(folder)
    unpin(folder)
    assert not is_pinned(folder)
    mark_damaged(folder, "a bit is another one")
    damage = damage_of(folder)
    assert damage is not None and damage.reason == "a bit is another one"
    mark_verified(folder, "a test")
    assert damage_of(folder) is None and is_verified(folder)
    mark_damaged(folder, "again")
    assert not is_verified(folder)
    (folder / "verified.json").write_text("yes")
    with pytest.raises(TrainyardError, match=r"verified\.json is no mark"):
        verification_of(folder)


def test_a_deletion_that_is_killed_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path, 10)

    def killed(path: str, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        delete_folder(folder)
    monkeypatch.undo()
    assert list_checkpoints(tmp_path) == []
    assert [path.name for path in remove_leftovers(tmp_path).removed] == ["step-0000000010.deleting"]
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_asked_for_takes_no_regular_ones_place(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (10, 20, 30):
        make(run.checkpoints, step, reason="interval")
    for step in (31, 32):
        make(run.checkpoints, step, reason="asked for: a look" if step == 31 else "asked for")
        pin(run.checkpoints / checkpoint_name(step), "asked for")
    known = known_checkpoints(run)
    assert [each.step for each in known if each.regular] == [30, 20, 10]
    assert (
        superfluous([replace(each, verified=True) for each in known], CheckpointConfig(every_steps=10, keep_last=3))
        == []
    )
