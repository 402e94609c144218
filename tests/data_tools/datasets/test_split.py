import pytest
from pydantic import ValidationError

from data_tools.data_config import DataConfig
from data_tools.datasets.split import parse_split, split_documents
from megatron_patches.errors import TrainyardError


def test_missing_shares_are_zero() -> None:
    assert parse_split("949,50,1") == (949, 50, 1)
    assert parse_split(" 0.9, .1") == (0.9, 0.1, 0)
    assert parse_split("1") == (1, 0, 0)


@pytest.mark.parametrize(
    "split", ["949,50,1", "949, 50 ,1", "949/50/1", "949 50 1", "[949, 50, 1]", " ( 949 , 50, 1 ) "]
)
def test_every_separator_that_megatron_takes(split: str) -> None:
    assert parse_split(split) == (949, 50, 1)


@pytest.mark.parametrize(
    ("given", "written"),
    [(100, "100"), (1.0, "1.0"), ([949, 50, 1], "949,50,1"), ("100,0,0", "100,0,0"), (" 949, 50, 1", " 949, 50, 1")],
)
def test_a_run_takes_shares_as_yaml_reads_them(given: object, written: str) -> None:
    section = {"path": "d", "tokenizer": "t", "sequence_length": 8, "split": given}
    assert DataConfig.model_validate(section).split == written


@pytest.mark.parametrize("given", [True, None, {}, [], ["a"], [True], 10**400, -1])
def test_what_is_no_share_is_refused(given: object) -> None:
    section = {"path": "d", "tokenizer": "t", "sequence_length": 8, "split": given}
    with pytest.raises(ValidationError, match=r"split"):
        DataConfig.model_validate(section)


@pytest.mark.parametrize("split", ["", "a,b", "1,2,3,4", "-1,2", "0,0,0", "nan,1", "inf", "1,,2", "1e308,1e308"])
def test_bad_shares(split: str) -> None:
    with pytest.raises(TrainyardError, match="949,50,1"):
        parse_split(split)


@pytest.mark.parametrize(
    ("split", "documents", "ranges"),
    [
        ("949,50,1", 1000, [(0, 949), (949, 999), (999, 1000)]),
        ("949,50,1", 20, [(0, 19), (19, 20), (20, 20)]),
        ("1", 7, [(0, 7), (7, 7), (7, 7)]),
        ("0,1", 7, [(0, 0), (0, 7), (7, 7)]),
        ("1,1", 5, [(0, 2), (2, 5), (5, 5)]),  # 2.5 rounds to even
        ("949,50,1", 0, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_ranges(split: str, documents: int, ranges: list[tuple[int, int]]) -> None:
    assert split_documents(split, documents) == ranges
