"""What the `model:` section of any architecture must say."""

from abc import abstractmethod

from megatron_patches.configuration.section import Section


class ModelSection(Section):
    """The `model:` section, whatever its architecture."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Token ids that the model knows, as many as its key `vocab_size` says; data with others is refused."""

    @property
    @abstractmethod
    def draws(self) -> bool:
        """Whether it drops anything in training."""

    @property
    def weights_dropped(self) -> float:
        """Share of attention weights that is dropped, which not every kernel can do."""
        return 0.0
