"""Checkpoints and their evaluations: whose metrics count as whose.

An evaluation names as its parent the artefact that was read, a full checkpoint or its weights alone. Both have the same
tensors, so what was measured of one counts for the other: where only weights are left, and where both are here.
"""

import json
from collections.abc import Sequence

from megatron_patches.artefacts.evaluations.best import near_metrics
from megatron_patches.artefacts.inventory.artefact import Artefact, read_artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.foreign.printable import shortened

_MEASURED = """
WITH measured(id, step, value) AS MATERIALIZED (
    SELECT parent, step, coalesce(json_extract(metrics, ?1), json_extract(parts, ?1)) AS found
    FROM artefacts JOIN parents ON child = number AND told
    WHERE kind = 'evaluation' AND state = 'valid' AND (instr(metrics, ?2) OR instr(parts, ?2)) AND found IS NOT NULL)
SELECT id, value FROM measured
UNION ALL
SELECT weights.id, value FROM measured JOIN parents ON parent = measured.id AND told
    JOIN artefacts AS weights ON weights.number = child
    WHERE weights.kind = 'checkpoint' AND weights.content = 'weights' AND weights.step = measured.step
UNION ALL
SELECT full.id, value FROM measured CROSS JOIN artefacts AS weights ON weights.id = measured.id
    CROSS JOIN parents ON child = weights.number AND told CROSS JOIN artefacts AS full ON full.id = parent
    WHERE weights.content = 'weights' AND full.kind = 'checkpoint' AND full.step = measured.step
"""
_SAME_TENSORS = """
SELECT weights.id FROM parents JOIN artefacts AS weights ON weights.number = child
    WHERE told AND parent = ?1 AND weights.kind = 'checkpoint' AND weights.content = 'weights' AND weights.step = ?2
UNION
SELECT parent FROM artefacts JOIN parents ON child = number AND told WHERE id = ?1 AND content = 'weights'
"""
"""ids that may stand for a checkpoint: of weights also what the full one came from, which is of other steps"""
_KNOWN = """
SELECT key FROM artefacts, json_each(metrics) UNION SELECT key FROM artefacts, json_each(parts)
UNION SELECT metric FROM annotations WHERE metric IS NOT NULL
"""
WITHOUT_CHECKPOINT = """
NOT EXISTS (SELECT 1 FROM parents JOIN artefacts AS above ON above.id = parent
            WHERE told AND child = artefacts.number AND above.kind = 'checkpoint')
AND NOT EXISTS (SELECT 1 FROM parents AS own JOIN parents AS other ON other.parent = own.parent AND other.told
            JOIN artefacts AS weights ON weights.number = other.child
            WHERE own.told AND own.child = artefacts.number AND weights.kind = 'checkpoint'
            AND weights.content = 'weights' AND weights.step = artefacts.step)
"""
"""in a query of artefacts: nothing is known of the checkpoint that an evaluation is of"""


def in_json(name: str) -> str:
    """A metric's place in the catalogue's columns."""
    return f"$.{json.dumps(name)}"  # escaped as the columns are: SQLite before 3.45 compares names as they are written


def measured(catalogue: Catalogue, name: str) -> dict[str, float]:
    """By id, the checkpoints of which a valid evaluation has a metric."""
    # text that lacks the name is not parsed: of a thousand evaluations with sixty subjects each that is most
    return dict(catalogue.rows(_MEASURED, [in_json(name), json.dumps(name)]))


def evaluations_of(catalogue: Catalogue, checkpoint: Artefact) -> list[Artefact]:
    """The evaluations of a checkpoint, invalid ones too."""
    if checkpoint.kind != "checkpoint" or checkpoint.step is None:
        return []
    same = catalogue.rows(_SAME_TENSORS, [checkpoint.id, checkpoint.step])
    ids = [each for (each,) in same]
    own = "SELECT child FROM parents WHERE told AND parent"
    return catalogue.artefacts(
        f"kind = 'evaluation' AND (number IN ({own} = ?) OR step = ? AND number IN ({own} IN ({_marks(ids)})))",
        [checkpoint.id, checkpoint.step, *ids],
        "ORDER BY manifest",
    )


def _marks(ids: Sequence[str]) -> str:
    return ",".join("?" * len(ids))


def known_metrics(catalogue: Catalogue, checkpoint: Artefact) -> dict[str, float]:
    """All numbers that were measured of a checkpoint: its own, and those of its valid evaluations."""
    found: dict[str, float] = {}
    for each in evaluations_of(catalogue, checkpoint):
        if each.state == "valid":
            found |= each.parts | each.metrics
    return found | read_artefact(checkpoint.manifest, checkpoint.run).metrics  # without what people typed


def unknown_metrics(catalogue: Catalogue, names: list[str]) -> list[str]:
    """A sentence for each of these names that no artefact has a metric of; the nearest are offered."""
    known = {each for (each,) in catalogue.rows(_KNOWN)}
    sentences = []
    for name in names:
        if name not in known:
            near = near_metrics(name, known)
            sentences.append(f"no artefact has a metric {shortened(name, 80)}{f'; {near}' if near else ''}")
    return sentences
