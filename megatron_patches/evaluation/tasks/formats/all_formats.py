"""The local formats by their words: those that lm-eval asks, and those that encoders alone are asked."""

from megatron_patches.evaluation.tasks.formats.arithmetic import ARITHMETIC
from megatron_patches.evaluation.tasks.formats.encoder_format import EncoderFormat
from megatron_patches.evaluation.tasks.formats.glue import GLUE
from megatron_patches.evaluation.tasks.formats.gsm8k import GSM8K, GSM8K_CHAT
from megatron_patches.evaluation.tasks.formats.hellaswag import HELLASWAG, HELLASWAG_PLAIN
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat
from megatron_patches.evaluation.tasks.formats.mmlu import MMLU
from megatron_patches.evaluation.tasks.formats.perplexity import PERPLEXITY
from megatron_patches.evaluation.tasks.formats.pseudo_perplexity import PSEUDO_PERPLEXITY

LOCAL_FORMATS: dict[str, LocalFormat] = {
    each.word: each for each in (HELLASWAG, HELLASWAG_PLAIN, MMLU, GSM8K, GSM8K_CHAT, ARITHMETIC, PERPLEXITY)
}
ENCODER_FORMATS: dict[str, EncoderFormat] = {each.word: each for each in (PSEUDO_PERPLEXITY, *GLUE)}
