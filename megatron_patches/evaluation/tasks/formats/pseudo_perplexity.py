"""Texts whose tokens an encoder fills in, each by itself: the files of `perplexity`."""

from megatron_patches.evaluation.tasks.formats.encoder_format import EncoderFormat

PSEUDO_PERPLEXITY = EncoderFormat(
    "pseudo-perplexity", "1.0", "FILE", "text, a document a row; or a .txt, which is one document",
    "each token hidden once, all others seen (Salazar et al. 2020); encoders alone", '{"text": "It was a dark night."}',
    ("pseudo_perplexity", "pseudo_bits_per_byte"),
)  # fmt: skip
