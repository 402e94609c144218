"""The loss as text and as a picture, from events."""

from pathlib import Path

import pytest

from megatron_patches.events.writing import EventWriter
from tools.loss_curve import LossCurve, draw_picture, read_curve, smoothed, text_plot

CURVE = LossCurve(
    run="tr900a-28K-small",
    training=[(step, 8.0 - step) for step in range(1, 7)],
    validation=[(3, 5.5), (6, 2.0)],
    stops=[3],
)


def test_the_curve_is_what_the_launches_recorded(tmp_path: Path) -> None:
    """The second launch owns the steps after the one it resumed from; a killed launch is no stop."""
    recorded = {
        "0001": (0, [1, 2, 3], "stopped"),
        "0002": (3, [4, 5, 6], None),
        "0003": (5, [6, 7], "finished"),
    }
    for launch, (start, steps, outcome) in recorded.items():
        writer = EventWriter(tmp_path, launch, "trainer")
        writer.write("start", step=start)
        for step in steps:
            writer.write("step", step=step, loss=float(f"{step}.{launch[-1]}"))
        writer.write("validation", step=steps[-1], loss=float(launch))
        if outcome:
            writer.write("end", step=steps[-1], outcome=outcome)
        writer.close()
    curve = read_curve("a run", tmp_path)
    assert curve.training == [(1, 1.1), (2, 2.1), (3, 3.1), (4, 4.2), (5, 5.2), (6, 6.3), (7, 7.3)]
    assert curve.validation == [(3, 1.0), (7, 3.0)]
    assert curve.stops == [3]


def test_the_text_plot() -> None:
    assert text_plot(CURVE, entropy=6.0, width=6, height=6).splitlines() == [
        "  7.00 . |",
        "  6.00 -.|---",
        "  5.00   o",
        "  4.00   |.",
        "  3.00   | .",
        "  2.00   |  o",
        "  step 1    6",
        "  nats per token: . training  o validation  | stop  - entropy of single tokens",
    ]


def test_a_rollback_in_the_text_plot() -> None:
    curve = LossCurve("run", [(step, 8.0 - step) for step in range(1, 5)], [], [], rollbacks=[2])
    lines = text_plot(curve, entropy=6.0, width=4, height=4).splitlines()
    assert lines[0] == "  7.00 .<"
    assert lines[-1].endswith("| stop  < rolled back to here  - entropy of single tokens")


def test_a_column_shows_the_mean_of_its_steps() -> None:
    """Columns of two and more steps; without the mean a column of spikes would be a bar."""
    curve = LossCurve("run", [(1, 9.0), (2, 1.0), (3, 2.0), (4, 2.0)], [(4, 2.0)], [])
    lines = text_plot(curve, entropy=5.0, width=2, height=4).splitlines()
    assert lines[0] == "  5.00 .-"
    assert lines[3] == "  2.00  o"


def test_smoothing_is_a_trailing_mean() -> None:
    curve = LossCurve("run", [(step, float(step)) for step in range(1, 13)], [], [])
    assert smoothed(curve)[:3] == [1.0, 1.5, 2.0]
    assert smoothed(curve)[-1] == pytest.approx(sum(range(3, 13)) / 10)


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw_picture(CURVE, 6.0, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")
