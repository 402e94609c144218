"""How fast a model writes with the keys and values that it keeps, beside reading all again for each token.

    python -m tests.generation_experiment

A GPT-2 of 29M parameters with random weights, of 512 positions, in fp32: 256 tokens after a prompt of 16. Reading all
again gives logits at every place, as a model does that knows of no cache; a second way only at the last one. It takes
two minutes on two idle cores.
"""

import time
from collections.abc import Callable

import torch

from megatron_patches.batch.fields import TOKENS, ModelInputs
from megatron_patches.generation.generator import Generator, Prompt
from megatron_patches.generation.model_on_rank import ModelOnRank, Readings, Texts
from megatron_patches.generation.model_ranks import ModelRanks
from megatron_patches.generation.sampling import Sampling
from megatron_patches.models.build import PlainModel
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import start_process_groups
from megatron_patches.parallel.randomness import StepRandomness
from tests.small_model import blueprint

MODEL = GPTConfig(layers=8, hidden_size=512, attention_heads=8, ffn_size=2048, vocab_size=8192)
POSITIONS, PROMPT, NEW = 512, 16, 256
BATCH = 8
TURNS = 2


def main() -> None:
    """Prints tokens per second, by wall clock and by CPU time, of the best turn, and whether all write the same ids."""
    ranks = random_model()
    prompts = torch.randint(MODEL.vocab_size, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    ways = {
        "reading all again": (1, lambda: all_again(ranks, prompts[0])),
        "the last logits alone": (1, lambda: last_again(ranks, prompts[0])),
        "with the cache": (1, lambda: with_cache(ranks, prompts[:1])),
        f"with it, {BATCH} prompts": (BATCH, lambda: with_cache(ranks, prompts)),
    }
    turns = [{name: measured(write) for name, (_, write) in ways.items()} for _ in range(TURNS)]
    print(f"{torch.get_num_threads()} threads: {NEW} tokens after a prompt of {PROMPT}")
    slow = [min(turn["reading all again"][clock] for turn in turns) for clock in (0, 1)]
    for name, (count, _) in ways.items():
        wall, cpu = (min(turn[name][clock] for turn in turns) for clock in (0, 1))
        print(
            f"{name + ':':23} {count * NEW / wall:7.1f} tokens/s; times as fast: {count * slow[0] / wall:.1f} "
            f"(CPU time {count * slow[1] / cpu:.1f})"
        )
    print(f"the same ids: {len({tuple(turn[name][2]) for turn in turns for name in ways}) == 1}")


def random_model() -> ModelRanks:
    groups = start_process_groups(Layout(1, 1, 1), torch.float32, alone=True)
    randomness = StepRandomness(0, groups.coordinates, groups.device)

    def reading(inputs: ModelInputs) -> PlainModel:
        return model.reading(blueprint(MODEL, POSITIONS, groups, randomness, inputs=inputs))

    causal = ModelInputs((TOKENS,), "causal")
    model = PlainModel(blueprint(MODEL, POSITIONS, groups, randomness, inputs=causal)).to(groups.device).eval()
    readings = Readings(causal, causal, keeps_keys=True)
    return ModelRanks(ModelOnRank(model, reading, readings, groups, MODEL.vocab_size), groups)


def all_again(ranks: ModelRanks, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(NEW):
        ids.append(int(ranks.all_logits(Texts([ids], [0]))[0][-1].argmax()))
    return ids[PROMPT:]


def last_again(ranks: ModelRanks, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    ranks.begin(1, POSITIONS)
    for _ in range(NEW):
        ids.append(int(ranks.read(None, Texts([ids], [0]))[0].argmax()))
    ranks.end()
    return ids[PROMPT:]


def with_cache(ranks: ModelRanks, prompts: list[list[int]]) -> list[int]:
    """The ids of the first prompt."""
    heard: list[list[int]] = [[] for _ in prompts]
    generator = Generator(ranks, POSITIONS, MODEL.vocab_size, ())
    asked = [Prompt(prompt, 0) for prompt in prompts]
    generator.generate(asked, NEW, Sampling(0), lambda row, chosen: heard[row].append(chosen) is None)
    return heard[0]


def measured(write: Callable[[], list[int]]) -> tuple[float, float, list[int]]:
    """Seconds by wall clock and of CPU time, and what was written."""
    wall, cpu = time.perf_counter(), time.process_time()
    ids = write()
    return time.perf_counter() - wall, time.process_time() - cpu, ids


if __name__ == "__main__":
    main()
