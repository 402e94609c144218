from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticKnownError

from data_tools.plans.samples_config import SAMPLES, PacksConfig, SamplesSection, StreamConfig, WindowsConfig


class _Holder(BaseModel):
    samples: Annotated[SamplesSection, SAMPLES] = StreamConfig(name="stream")


def test_kinds() -> None:
    assert isinstance(_Holder().samples, StreamConfig)
    for given, kind in (("windows", WindowsConfig), ({"name": "packs"}, PacksConfig), ({}, StreamConfig)):
        assert isinstance(_Holder.model_validate({"samples": given}).samples, kind)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("blocks", "expected tags: stream, windows, packs"),
        ({"name": "stream", "stride": 3}, "stride"),
        ({"name": "windows", "stride": 3, "overlap": 0.5}, "give one of them"),
        ({"name": "windows", "overlap": 1.0}, "less than 1"),
        ({"name": "windows", "stride": 0}, "greater than 0"),
        ({"name": "packs", "longer": "split"}, "'cut' or 'drop'"),
        ({"name": "packs", "block_documents": 0}, "greater than 0"),
        ({"name": "packs", "filters": {"minimum_tokens": 9, "maximum_tokens": 8}}, "no text is left"),
        ({"name": "packs", "filters": {"maximum_upper_case": 1}}, "less than 1"),
        ({"name": "packs", "filters": {"minimum_tokens": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_has_no_sense(given: Any, told: str) -> None:
    with pytest.raises((ValidationError, PydanticKnownError), match=told):
        SAMPLES.validate(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("stream", []),
        ("windows", []),
        ({"name": "windows", "stride": 8}, []),
        ({"name": "windows", "stride": 9}, ["leaves tokens out"]),
        ({"name": "windows", "filters": {"maximum_tokens": 8}}, ["has no effect"]),
        ({"name": "windows", "filters": {"minimum_tokens": 9}}, ["leaves nothing"]),
        ({"name": "windows", "filters": {"minimum_tokens": 8, "maximum_tokens": 8}}, ["has no effect"]),
        ({"name": "windows", "filters": {"minimum_tokens": 2, "maximum_tokens": 7}}, []),
        ({"name": "packs", "filters": {"minimum_tokens": 9, "maximum_tokens": 900}}, []),
        ({"name": "packs", "longer": "drop", "filters": {"maximum_tokens": 900}}, ["longer: drop"]),
    ],
)
def test_what_has_no_sense_where_a_sample_reads_eight_tokens(given: Any, told: list[str]) -> None:
    found = list(SAMPLES.validate(given).problems(8))
    assert len(found) == len(told)
    assert all(part in text for part, text in zip(told, found, strict=True)), found


@pytest.mark.parametrize(
    ("overlap", "read", "stride"), [(0, 8, 8), (0.5, 9, 5), (0.29, 100, 71), (0.99, 8, 1), (0.1, 4, 4), (0.5, 1, 1)]
)
def test_an_overlap_is_to_the_nearest_token(overlap: float, read: int, stride: int) -> None:
    section = SAMPLES.validate({"name": "windows", "overlap": overlap})
    assert isinstance(section, WindowsConfig)
    assert section.stride_of(read) == stride
