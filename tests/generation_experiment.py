"""How fast a model writes with the keys and values that it keeps, beside reading all again for each token.

    python -m tests.generation_experiment

A GPT-2 of 4M parameters with random weights, of 512 positions, in fp32: 256 tokens after a prompt of 64.
"""

import time
from collections.abc import Callable

import torch

from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.generation.generator import Generator, Prompt
from megatron_patches.generation.model_on_rank import FOLLOWING, ModelOnRank, Texts
from megatron_patches.generation.model_ranks import ModelRanks
from megatron_patches.generation.sampling import Sampling
from megatron_patches.models.build import PlainModel
from megatron_patches.models.layers.model_config import ModelConfig
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import start_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from tests.small_model import blueprint

MODEL = ModelConfig(layers=4, hidden_size=256, attention_heads=4, ffn_size=1024, vocab_size=4096)
POSITIONS, PROMPT, NEW = 512, 64, 256
BATCH = 8


def main() -> None:
    """Prints tokens per second, of the best of two, and whether both ways write the same ids."""
    groups = start_process_groups(Layout(1, 1, 1), torch.float32, alone=True)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    model = PlainModel(blueprint(MODEL, POSITIONS, groups, randomness, inputs=ModelInputs((TOKENS,), "causal")))
    model = model.to(groups.device).eval()
    following = model.reading(blueprint(MODEL, POSITIONS, groups, randomness, inputs=FOLLOWING))
    ranks = ModelRanks(ModelOnRank(model, following, groups, MODEL.vocab_size, False), groups)
    prompts = torch.randint(MODEL.vocab_size, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()

    def reading_again() -> list[int]:
        ids = list(prompts[0])
        for _ in range(NEW):
            ids.append(int(ranks.all_logits(Texts([ids], [0]))[0, -1].argmax()))
        return ids[PROMPT:]

    def with_cache(count: int) -> list[int]:
        heard: list[list[int]] = [[] for _ in range(count)]
        generator = Generator(ranks, POSITIONS, MODEL.vocab_size, ())
        asked = [Prompt(prompt, 0) for prompt in prompts[:count]]
        generator.generate(asked, NEW, Sampling(0), lambda row, chosen: heard[row].append(chosen) is None)
        return heard[0]

    slow, expected = measured(reading_again)
    fast, found = measured(lambda: with_cache(1))
    many, among_others = measured(lambda: with_cache(BATCH))
    print(f"{torch.get_num_threads()} threads, {groups.device}: {NEW} tokens after a prompt of {PROMPT}")
    print(f"reading all again:        {NEW / slow:8.1f} tokens/s")
    print(f"with the cache:           {NEW / fast:8.1f} tokens/s, {slow / fast:.1f} times as fast")
    print(
        f"with it, {BATCH} prompts:       {BATCH * NEW / many:8.1f} tokens/s, {BATCH * slow / many:.1f} times as fast"
    )
    print(f"the same ids: {expected == found == among_others}")


def measured(write: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """Seconds of the faster of two, and what was written."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        ids = write()
        seconds.append(time.perf_counter() - start)
    return min(seconds), ids


if __name__ == "__main__":
    main()
