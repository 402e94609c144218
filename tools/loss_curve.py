"""A run's loss as a picture and as text, from its events."""

from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase
from textwrap import fill

from megatron_patches.artefacts.chosen import UNNAMED_GROUP
from megatron_patches.errors import Missing
from megatron_patches.events.group_losses import group_of_validation, recorded_group
from megatron_patches.events.reading import Event, effective, read_events, rollbacks
from megatron_patches.foreign.json_text import number_of

SMOOTHED_STEPS = 10
_SIGNS = f"o{ascii_lowercase.replace('o', '')}"
"""of validation groups in a terminal; of more there is no telling them apart"""
_GLUE = "\xa0"
"""a space at which no line is broken: between a sign and its name"""
_MARKERS = "os"
_COLOURS = 9
"""of matplotlib's ten the first is close to that of training"""
_PICTURED = _COLOURS * len(_MARKERS)
"""further validation groups with a curve of their own look; others are drawn in grey, and counted"""
_BESIDE = 4
"""groups, of more than which the legend stands beside the curves: within, it would hide them"""


@dataclass(frozen=True)
class LossCurve:
    """Losses in nats per token, by step."""

    run: str
    training: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    """on the group by which the best checkpoint is told"""
    stops: list[int]
    """steps after which the run was stopped, to be continued"""
    rollbacks: list[int] = field(default_factory=list)
    """steps that the run went back to on purpose: what follows is trained again, or on other samples"""
    group: str = UNNAMED_GROUP
    """name of that group"""
    others: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """on further groups, by name"""

    @property
    def validations(self) -> dict[str, list[tuple[int, float]]]:
        """On every group, the main one first."""
        return {self.group: self.validation, **self.others}


def read_curve(run: str, events_folder: Path) -> LossCurve:
    """What the run's launches recorded, without the steps that were rolled back."""
    events = read_events(events_folder)
    validated: dict[str, list[Event]] = {}
    for event in effective(events, "validation"):
        validated.setdefault(group_of_validation(event.facts), []).append(event)
    group = recorded_group(events)
    if group not in validated:
        group = next(iter(validated), UNNAMED_GROUP)
    return LossCurve(
        run=run,
        training=_losses(effective(events, "step")),
        validation=_losses(validated.pop(group, [])),
        stops=[event.facts["step"] for event in effective(events, "end") if event.facts["outcome"] == "stopped"],
        rollbacks=sorted({event.facts["step"] for event in rollbacks(events)}),
        group=group,
        others={name: _losses(found) for name, found in validated.items()},
    )


def _losses(events: list[Event]) -> list[tuple[int, float]]:
    """A loss that is not finite has no place on a curve."""
    known = ((event.facts["step"], number_of(event.facts.get("loss"))) for event in events)
    return [(step, loss) for step, loss in known if loss is not None]


def draw_picture(curve: LossCurve, entropy: float, path: Path) -> None:
    """A PNG of training and validation loss, the stops, and the entropy of single tokens (nats) to compare with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    steps = [step for step, _ in curve.training]
    axes.plot(steps, [loss for _, loss in curve.training], color="#9ecae1", linewidth=1, label="training, each step")
    axes.plot(steps, smoothed(curve), color="#08519c", linewidth=2, label=f"training, mean of {SMOOTHED_STEPS} steps")
    axes.plot(*_places(curve.validation), "o--", color="#d94801", label=_label(curve.group), zorder=3)
    for number, (name, losses) in enumerate(curve.others.items()):
        marker, colour = _MARKERS[number // _COLOURS % len(_MARKERS)], f"C{number % _COLOURS + 1}"
        if number < _PICTURED:
            axes.plot(*_places(losses), f"{marker}--", color=colour, markersize=4, linewidth=1, label=_label(name))
        else:
            label = f"validation, {len(curve.others) - number} more" if number == _PICTURED else None
            axes.plot(*_places(losses), color="#cccccc", linewidth=0.5, label=label, zorder=1)
    axes.axhline(entropy, color="#555555", linestyle=":", label=f"entropy of single held-out tokens, {entropy:.2f}")
    for number, step in enumerate(curve.stops):
        axes.axvline(step, color="#31a354", label=None if number else "stopped and resumed")
        axes.annotate(
            f"{step}", (step, 1), xycoords=("data", "axes fraction"), xytext=(4, -12), textcoords="offset points"
        )
    for number, step in enumerate(curve.rollbacks):
        axes.axvline(step, color="#756bb1", linestyle="--", label=None if number else "rolled back to here")
    if curve.validation:
        last = curve.validation[-1]
        axes.annotate(f"{last[1]:.2f}", last, xytext=(0, -16), textcoords="offset points", ha="center")
    axes.set(title=curve.run, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    if len(curve.validations) > _BESIDE:
        figure.legend(loc="outside right upper", fontsize="x-small")
    else:
        axes.legend()
    figure.savefig(path, dpi=120)


def _places(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]


def _label(group: str) -> str:
    return group if group == UNNAMED_GROUP else f"validation, {group}"


def smoothed(curve: LossCurve) -> list[float]:
    """Mean over each step and the ones before it, up to SMOOTHED_STEPS in all."""
    losses = [loss for _, loss in curve.training]
    windows = [losses[max(0, last - SMOOTHED_STEPS + 1) : last + 1] for last in range(len(losses))]
    return [sum(window) / len(window) for window in windows]


def text_plot(curve: LossCurve, entropy: float, width: int = 72, height: int = 16) -> str:
    """The picture for a terminal: `.` training (a column's mean), `o` validation, `a`, `b` ... validation on further
    groups, `|` a stop, `<` a step that the run was rolled back to, `-` the entropy.
    """
    if not curve.training:
        raise Missing(f"{curve.run} has recorded no step with a finite loss yet")
    last_step = max(step for step, _ in curve.training)

    def column(step: int) -> int:
        return round((step - 1) / max(1, last_step - 1) * (width - 1))

    means = _column_means([(column(step), loss) for step, loss in curve.training])
    values = [*means.values(), *(loss for losses in curve.validations.values() for _, loss in losses), entropy]
    low, high = min(values), max(values)

    def row(loss: float) -> int:
        return round((high - loss) / ((high - low) or 1) * (height - 1))

    grid = [[" "] * width for _ in range(height)]
    grid[row(entropy)] = ["-"] * width
    for steps, sign in ((curve.stops, "|"), (curve.rollbacks, "<")):
        for step in steps:
            for line in grid:
                line[min(width - 1, max(0, column(step)))] = sign
    for place, loss in means.items():
        grid[row(loss)][place] = "."
    signs = dict(zip(curve.validations, _SIGNS, strict=False))
    for name, sign in reversed(signs.items()):  # the main group's last, over the others
        for step, loss in curve.validations[name]:
            grid[row(loss)][column(step)] = sign
    labels = [f"{high - (high - low) * number / (height - 1):6.2f}" for number in range(height)]
    lines = [f"{label} {''.join(line)}".rstrip() for label, line in zip(labels, grid, strict=True)]
    axis = f"{'step':>6} 1{last_step:>{width - 1}}"
    back = "< rolled back to here  " if curve.rollbacks else ""
    main = "validation" if curve.group == UNNAMED_GROUP else f"validation on {curve.group}"
    legend = f"  nats per token: . training  o {main}  | stop  {back}- entropy of single tokens"
    more = [f"{sign}{_GLUE}{name}" for name, sign in signs.items() if name != curve.group]
    left_out = [f"and {len(curve.others) - len(more)} more"] if len(more) < len(curve.others) else []
    told = f"validation on further groups: {'  '.join([*more, *left_out])}"
    groups = fill(told, max(width, 60), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    groups = groups.replace(_GLUE, " ")
    return "\n".join([*lines, axis, legend, *([groups] if more else [])])


def _column_means(points: list[tuple[int, float]]) -> dict[int, float]:
    columns: dict[int, list[float]] = {}
    for column, loss in points:
        columns.setdefault(column, []).append(loss)
    return {column: sum(losses) / len(losses) for column, losses in columns.items()}
