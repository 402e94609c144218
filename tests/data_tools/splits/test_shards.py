import pytest

from data_tools.splits.shards import choose_shards, parse_shards
from megatron_patches.errors import TrainyardError

FILES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("1:", "bcd"),
        (":1", "a"),
        ("0:4", "abcd"),
        (" 1 : 3 ", "bc"),
        ("0", "a"),
        (3, "d"),
        ("0:", "abcd"),
        (":", "abcd"),
    ],
)
def test_shards(given: object, chosen: str) -> None:
    assert choose_shards(FILES, parse_shards(given)) == list(chosen)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *((each, "is no range of shards") for each in ("", "a", "-1:", "1:2:3", "1 2", "0.5", "²:", "9" * 20)),
        *((each, "is no range of shards") for each in (None, True, 0.5, [], [0, 1], -1)),
        *((each, "has no shard in it") for each in ("1:1", "3:2", ":0")),
    ],
)
def test_what_is_no_range(given: object, said: str) -> None:
    with pytest.raises(TrainyardError, match=f"{said}.*counted from 0"):
        parse_shards(given)


@pytest.mark.parametrize("given", ["4:", "4", "0:5", ":9"])
def test_shards_that_are_not_there(given: str) -> None:
    with pytest.raises(TrainyardError, match="reaches beyond the 4 shards that there are, 0:4"):
        choose_shards(FILES, parse_shards(given))
