"""Bytes that a rank keeps of one micro-batch of two stacks, tensor by tensor. Torch-free."""

from dataclasses import dataclass

from megatron_patches.models.interface.architecture import Activations, Workload
from tests.second_architecture.config import TwoStacksConfig

FP32, INT64 = 4, 8


@dataclass(frozen=True)
class _Side:
    """The tokens of one stream on a rank."""

    model: TwoStacksConfig
    work: Workload
    positions: int

    @property
    def whole(self) -> int:
        """Bytes of the stream within matrices."""
        return self.work.micro_batch * self.positions * self.model.width * self.work.width

    @property
    def stream(self) -> int:
        """Bytes of it between matrices."""
        return self.whole // (self.work.layout.tensor if self.work.layout.sequence_parallel else 1)

    @property
    def share(self) -> int:
        """Bytes of its queries, or keys, or values, here."""
        return self.whole // self.work.layout.tensor

    @property
    def features(self) -> int:
        """Bytes of the MLP's features here."""
        return self.share * self.model.features // self.model.width

    @property
    def norm(self) -> int:
        """What a norm reads and makes, and its statistics."""
        statistics = 2 * self.stream // self.model.width
        return 2 * self.stream + statistics

    @property
    def mask(self) -> int:
        """What dropout keeps of a sub-layer."""
        if self.model.dropout == 0:
            return 0
        return self.stream // self.work.width if self.work.device == "cuda" else self.stream

    @property
    def mlp(self) -> int:
        """With its norm; of ReLU the result alone is kept."""
        return self.norm + self.features + self.mask


def two_stacks_activations(model: TwoStacksConfig, work: Workload) -> Activations:
    """What one micro-batch keeps."""
    encoder, decoder = (_Side(model, work, work.lengths.of(name)) for name in ("encoder", "decoder"))
    packed = encoder.stream + decoder.stream
    kind = work.recomputation
    learned = _attention(encoder, encoder, biased=True)
    plain = _attention(decoder, decoder) + _attention(decoder, encoder)
    inside = {"encoder.layers": learned, "decoder.layers": plain}
    projected = {
        "encoder.layers": 4 * encoder.share,
        "decoder.layers": 6 * decoder.share + 2 * encoder.share,
    }
    rest = {
        "encoder.layers": encoder.norm + encoder.mask + encoder.mlp,
        "decoder.layers": packed + 2 * (decoder.norm + decoder.mask) + decoder.mlp - decoder.stream,
    }
    bias = {"encoder.layers": _bias(encoder) + _distances(encoder), "decoder.layers": 0}
    kept = {
        "none": {stack: rest[stack] + projected[stack] + inside[stack] for stack in rest},
        "selective": {stack: rest[stack] + projected[stack] + bias[stack] for stack in rest},
        "full": {"encoder.layers": encoder.stream + bias["encoder.layers"], "decoder.layers": packed},
    }
    logits = work.micro_batch * decoder.positions * model.vocab_size // work.layout.tensor * work.width
    labels = work.micro_batch * decoder.positions * (INT64 + FP32 + INT64 + 1 + 2 * FP32)
    ids = work.micro_batch * encoder.positions * INT64 * (2 if work.layout.tensor > 1 else 1)
    return Activations(
        blocks=kept[kind],
        repeated={"none": 0, "selective": max(inside.values()), "full": max(kept["none"].values())}[kind],
        stem=ids + encoder.mask,
        head=packed + decoder.norm + labels,
        logits=logits,
        loss=2 * logits if work.width != FP32 else logits,
        backward=2 * max(encoder.features, decoder.features) + 2 * packed,
        stream=packed,
    )


def _bias(side: _Side) -> int:
    """What a block adds to its scores."""
    return side.positions**2 * (side.model.heads // side.work.layout.tensor) * side.work.width


def _distances(side: _Side) -> int:
    """By which the table is read, in front of each block."""
    return side.positions**2 * INT64


def _attention(queries: _Side, keys: _Side, biased: bool = False) -> int:
    """What attention keeps beside projected queries, keys and values, and its result."""
    heads = queries.model.heads // queries.work.layout.tensor
    rows = queries.work.micro_batch * queries.positions * heads
    if biased and queries.work.device == "cpu":  # a kernel that writes all scores out
        return rows * keys.positions * queries.work.width + queries.share + keys.share + _distances(queries)
    return rows * FP32 + (_bias(queries) + _distances(queries) if biased else 0)
