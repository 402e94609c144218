from types import SimpleNamespace

import numpy as np

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.text.document_encoding import EncodedTexts
from data_tools.text_sources.held_out import documents_of_part


def test_a_block_without_a_document_is_none_of_those_held_out() -> None:
    none = EncodedBlock([EncodedTexts(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))], [], 0)
    one = EncodedBlock([EncodedTexts(np.arange(3), np.array([2, 1]), np.zeros(0, np.int64))], [], 0)
    part = SimpleNamespace(blocks=lambda: [none, one, none])
    found = documents_of_part(part, lambda blocks: ((each, each) for each in blocks))  # type: ignore[arg-type]
    assert [each.tolist() for each in found] == [[0, 1], [2]]
