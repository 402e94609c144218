"""A process that holds a model with the one that started it: `python -m megatron_patches.generation.follower`."""

import os

from megatron_patches.foreign.streams import print_any_text
from megatron_patches.launch.rank_settings import quieten_libraries


def main() -> None:
    """Does what the first process says, until it is ended."""
    print_any_text()
    quieten_libraries()
    import torch  # with DeepSpeed below, which reads the settings

    from megatron_patches.generation.loaded_model import obey
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups

    obey(start_process_groups(Layout(int(os.environ["WORLD_SIZE"]), 1, 1), torch.float32))


if __name__ == "__main__":
    main()
