"""A process that holds a model with the one that started it: `python -m megatron_patches.generation.follower TENSOR
PIPELINE`, the sizes of the layout."""

import sys

from megatron_patches.foreign.streams import print_any_text
from megatron_patches.launch.rank import lost_another_rank
from megatron_patches.launch.rank_settings import quieten_libraries


def main(tensor: int, pipeline: int) -> int:
    """Does what the first process says, until it is ended; the exit code where another one ended before."""
    print_any_text()
    quieten_libraries()
    import torch  # with DeepSpeed below, which reads the settings

    from megatron_patches.generation.loaded_model import obey
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    try:
        obey(start_process_groups(Layout(tensor, pipeline, 1), torch.float32))
    except RuntimeError as error:
        if not lost_another_rank(error):
            raise
        return 1  # the first process says which one ended, and how


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
