"""The local formats by their words."""

from megatron_patches.evaluation.tasks.formats.arithmetic import ARITHMETIC
from megatron_patches.evaluation.tasks.formats.gsm8k import GSM8K, GSM8K_CHAT
from megatron_patches.evaluation.tasks.formats.hellaswag import HELLASWAG, HELLASWAG_PLAIN
from megatron_patches.evaluation.tasks.formats.local_format import LocalFormat
from megatron_patches.evaluation.tasks.formats.mmlu import MMLU
from megatron_patches.evaluation.tasks.formats.perplexity import PERPLEXITY

LOCAL_FORMATS: dict[str, LocalFormat] = {
    each.word: each for each in (HELLASWAG, HELLASWAG_PLAIN, MMLU, GSM8K, GSM8K_CHAT, ARITHMETIC, PERPLEXITY)
}
