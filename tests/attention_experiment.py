"""What attention of packed texts costs on a CPU: a call for each length beside one call with a dense mask.

    python -m tests.attention_experiment

Forward and backward pass of one layer's attention in fp32, 2 samples of 1,024 tokens, 8 heads of 64, cut at random into
texts of some mean length: CPU time of one thread, the best of turns that alternate. It takes half a minute.
"""

import random
import time
from collections.abc import Callable

import torch
from torch import Tensor

from megatron_patches.models.attention.attend import attend
from megatron_patches.models.attention.segments import find_segments
from tests.dense_mask import attend_densely

BATCH, TOKENS, HEADS, SIZE = 2, 1024, 8, 64
MEANS = (32, 128, 512, 1024)
TURNS = 4


def main() -> None:
    """Prints, of each mean length, the time of segments as a share of the dense mask's, and how far they are apart."""
    torch.set_num_threads(1)
    print(f"one thread, {BATCH} samples of {TOKENS} tokens, {HEADS} heads of {SIZE}")
    for causal in (False, True):
        for mean in MEANS:
            print(f"{'causal' if causal else 'full':6} texts of {mean:4} tokens: {compared(mean, causal)}", flush=True)


def compared(mean: int, causal: bool) -> str:
    documents = texts(mean)
    inputs = [torch.randn(BATCH, HEADS, TOKENS, SIZE, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(BATCH, HEADS, TOKENS, SIZE)
    ways: list[Callable[[], Tensor]] = [
        lambda: attend(*inputs, find_segments(documents, causal)),
        lambda: attend_densely(*inputs, documents, causal),
    ]

    def step(way: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        made = way()
        return made, *torch.autograd.grad(made, inputs, gradient)

    pairs = zip(*map(step, ways), strict=True)
    difference = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    seconds = [min(each) for each in zip(*([timed(step, way) for way in ways] for _ in range(TURNS)), strict=True)]
    return f"{seconds[0] / seconds[1]:.2f} of the time ({seconds[1] * 1e3:.0f} ms), differ by {difference:.0e}"


def texts(mean: int) -> Tensor:
    """A number for each text, int64 `[batch, tokens]`; as long as a sample, each text is one."""
    draw = random.Random(mean)
    rows = []
    for _ in range(BATCH):
        row: list[int] = []
        while len(row) < TOKENS:
            length = TOKENS if mean == TOKENS else max(1, round(draw.expovariate(1 / mean)))
            row += [len(row)] * length
        rows.append(row[:TOKENS])
    return torch.tensor(rows)


def timed(step: Callable[[Callable[[], Tensor]], object], way: Callable[[], Tensor]) -> float:
    start = time.process_time()
    step(way)
    return time.process_time() - start


if __name__ == "__main__":
    main()
