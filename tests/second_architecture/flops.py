"""Floating-point work of two stacks, of one token that counts: one of the decoder's. Torch-free."""

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.interface.architecture import FlopsPerToken, Recomputation
from megatron_patches.parameters.row import ParameterRow
from tests.second_architecture.config import TwoStacksConfig
from tests.second_architecture.parameters import parameters


def two_stacks_flops(model: TwoStacksConfig, lengths: SampleLengths, recomputation: Recomputation) -> FlopsPerToken:
    """Of a whole sample, divided by the tokens of it that count."""
    encoder, decoder = lengths.of("encoder"), lengths.of("decoder")
    products = 2 * sum(row.elements * _multiplied_with(row, encoder, decoder) for row in parameters(model))
    logits = 2 * model.vocab_size * model.width * decoder
    pairs = model.encoder_blocks * encoder**2 + model.decoder_blocks * decoder * (decoder + encoder)
    scores = 4 * model.width * pairs
    unseen = 4 * model.width * model.decoder_blocks * decoder * (decoder - 1) / 2
    blocks = products - logits + scores
    repeated = {"none": 0, "selective": scores, "full": blocks}[recomputation]
    once = 3 * (products + scores)
    coefficient = 4 if recomputation == "full" else 3
    return FlopsPerToken(
        palm=once / decoder,
        bigscience=coefficient * (blocks + 0.75 * logits) / decoder,
        causal=(once - 3 * unseen) / decoder,
        computed=(once + repeated) / decoder,
    )


def _multiplied_with(row: ParameterRow, encoder: int, decoder: int) -> int:
    """Tokens of a sample that a matrix is multiplied with; keys and values of the cross-attention are the encoder's."""
    if not row.matrix or row.looked_up:
        return 0
    reads_encoder = row.stack == "encoder.layers" or ".cross_attention.key_value." in row.name
    return encoder if reads_encoder else decoder
