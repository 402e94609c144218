"""What float8 does to a loss curve: `python -m tests.fp8_experiment [--steps N]`.

A GPT of four blocks trains on a dataset of made-up words, once with its matrices multiplied in bf16 and once in
float8, from the same weights over the same samples. On any machine: a CPU multiplies the same rounded numbers.
"""

import argparse
import tempfile
from pathlib import Path

from tests.ranks import run_on_ranks
from tests.small_engine import Steps, record_steps
from tests.small_training import SmallData, make_small_data, overrides

STEPS = 40


def curve(data: SmallData, folder: Path, fp8: str, steps: int) -> Steps:
    """(loss, gradient norm) of each step of the run."""
    arguments = overrides(
        model__hidden_size=64, model__ffn_size=256, training__micro_batch_size=8, training__steps=steps,
        training__precision="bf16", training__fp8=fp8, optimizer__gradient_clip=1.0, data__max_epochs=100,
    )  # fmt: skip
    return run_on_ranks(record_steps, 1, data.run(folder, arguments), steps, timeout=300)[0]


def greatest_difference(found: Steps, expected: Steps) -> float:
    """Of the losses of one step, relative."""
    return max(abs(a / b - 1) for (a, _), (b, _) in zip(found, expected, strict=True))


def main(steps: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        data = make_small_data(Path(name) / "data")
        bf16, fp8 = (curve(data, Path(name), kind, steps) for kind in ("none", "tensorwise"))
    print("| step | bf16 | fp8 | difference |\n|---|---|---|---|")
    for step in sorted({1, *range(steps // 8, steps + 1, max(1, steps // 8))}):
        one, other = bf16[step - 1][0], fp8[step - 1][0]
        print(f"| {step} | {one:.4f} | {other:.4f} | {other / one - 1:+.2%} |")
    print(f"\nGreatest difference of a step's loss: {greatest_difference(fp8, bf16):.2%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.fp8_experiment")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of both runs")
    main(parser.parse_args().steps)
