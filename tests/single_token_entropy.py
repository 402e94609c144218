"""Entropy of the tokens that a masked-LM run is validated on: `python -m tests.single_token_entropy RUN...`.

No model that ignores the context can have a lower loss on them. It is computed in nats, over all tokens of the
validation samples that masking may choose: those that it chooses are a random part of them.
"""

import sys

import numpy as np

from data_tools.run_data import RunData
from megatron_patches.checkout import CHECKOUT
from megatron_patches.run.reading import load_run
from tools.commands.demo import unigram_entropy
from tools.run_files.catalogue import find_run


def validation_entropy(name: str) -> float:
    """The entropy of the run's first validation group, whose dataset must be here. Special tokens do not count."""
    config = load_run(find_run(name, CHECKOUT))
    data = RunData(config.data, CHECKOUT, config.lengths, config.place_after)
    special = data.special_tokens(config.objective.token_roles)
    assert config.evaluation is not None and special is not None, f"{name} is validated by masked LM"
    samples = data.groups[0].samples
    tokens = np.concatenate([samples[number]["tokens"] for number in range(config.evaluation.samples)])
    return unigram_entropy(tokens[~np.isin(tokens, list(special.special))].astype(np.int64))


def main() -> int:
    """Prints a line for each run."""
    for name in sys.argv[1:]:
        print(f"{name}: {validation_entropy(name):.3f} nats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
