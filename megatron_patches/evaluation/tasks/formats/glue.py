"""The tasks of GLUE (Wang et al. 2019): sentences or pairs with a label, in GLUE's own files or rows as the hub has."""

from dataclasses import dataclass

from megatron_patches.evaluation.tasks.formats.encoder_format import EncoderFormat


@dataclass(frozen=True)
class GlueFormat(EncoderFormat):
    """One of GLUE's tasks."""

    texts: tuple[str, ...]
    """keys of a row's one or two texts"""
    columns: tuple[str, ...]
    """of GLUE's own files: those of the texts, then that of the label, as their first line names them"""
    labels: tuple[str, ...]
    """their names in the order of their numbers; none of a score"""
    first_line: tuple[str, ...] = ()
    """names of all columns, where the files have no such line"""
    parts: tuple[str, ...] = ()
    """endings of the names of several files that are asked, as in dev_matched"""
    drops_short_lines: bool = False
    """whether lines that lack columns are left out: the published file has some whose text held a line break"""

    @property
    def is_score(self) -> bool:
        """Whether a number is predicted, and no label."""
        return not self.labels


_MANNER = "fine-tuned on train, asked on dev; encoders alone"
_SENTENCE, _PAIR = ("sentence",), ("sentence1", "sentence2")


def _format(
    name: str,
    texts: tuple[str, ...],
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    metrics: tuple[str, ...] = ("acc",),
    first_line: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
    drops_short_lines: bool = False,
) -> GlueFormat:
    words = {"sentence": "It was dark.", "question": "Was it dark?", "premise": "It was dark."}
    shown = [f'"{text}": "{words.get(text, "It was dark.")}"' for text in texts]
    label = "0" if labels else "3.5"
    files = " and ".join(f"dev_{part}.tsv" for part in parts) or "dev.tsv"
    return GlueFormat(
        f"glue-{name}", "1.0", "FOLDER or DEV+TRAIN",
        f"{', '.join(texts)}, label ({f'0 to {len(labels) - 1}, or its name' if labels else 'a score'}); or GLUE's "
        f"train.tsv and {files}",
        _MANNER, f"{{{', '.join(shown)}, \"label\": {label}}}", metrics, texts, columns, labels, first_line, parts,
        drops_short_lines,
    )  # fmt: skip


COLA = _format(
    "cola", _SENTENCE, ("sentence", "label"), ("unacceptable", "acceptable"), ("mcc", "acc"),
    first_line=("source", "label", "mark", "sentence"),
)  # fmt: skip
SST2 = _format("sst2", _SENTENCE, ("sentence", "label"), ("negative", "positive"))
MRPC = _format(
    "mrpc", _PAIR, ("#1 String", "#2 String", "Quality"), ("not_equivalent", "equivalent"), ("acc", "f1")
)  # fmt: skip
QQP = _format(
    "qqp", ("question1", "question2"), ("question1", "question2", "is_duplicate"), ("not_duplicate", "duplicate"),
    ("acc", "f1"), drops_short_lines=True,
)  # fmt: skip
STSB = _format("stsb", _PAIR, (*_PAIR, "score"), (), ("pearson", "spearman", "squared_error"))
MNLI = _format(
    "mnli", ("premise", "hypothesis"), (*_PAIR, "gold_label"), ("entailment", "neutral", "contradiction"),
    parts=("matched", "mismatched"),
)  # fmt: skip
QNLI = _format("qnli", ("question", "sentence"), ("question", "sentence", "label"), ("entailment", "not_entailment"))
RTE = _format("rte", _PAIR, (*_PAIR, "label"), ("entailment", "not_entailment"))
WNLI = _format("wnli", _PAIR, (*_PAIR, "label"), ("not_entailment", "entailment"))

GLUE = (COLA, SST2, MRPC, QQP, STSB, MNLI, QNLI, RTE, WNLI)
