"""The local form that asks what a task of the harness asks, for those who have its data and no network."""

_FORMS = {
    "hellaswag": "hellaswag:FILE.jsonl",
    "mmlu": "mmlu:FOLDER",
    "gsm8k": "gsm8k:FILE.jsonl",
    "wikitext": "perplexity:FILE.txt",
}
_ARITHMETIC = "arithmetic_"
_MMLU = "mmlu_"


def local_counterpart(name: str) -> str | None:
    """How a command line would name it; None where no local format serves.

    Args:
        name: of a task or group of the harness.
    """
    if name.startswith(_MMLU):
        return _FORMS["mmlu"]
    if name.startswith(_ARITHMETIC):
        return "arithmetic"
    return _FORMS.get(name)
