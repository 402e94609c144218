"""YAML of runs, values of a command line, addresses."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.artefacts.location import parse_location, run_location
from megatron_patches.configuration.yaml_text import dump_yaml, read_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import ODD_TEXTS, odd_entries, odd_json, odd_text
from tests.small_run import SMALL_RUN
from tools.commands.dataset.blend_sources import ratios_in

NewPlace = Callable[[], Place]


@cases(300)
@given(data=st.data())
def test_a_runs_file(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    path = place.inside / "tr900a-28K-small.yaml"
    path.write_bytes(data.draw(odd_text(SMALL_RUN)))
    found = attempt(lambda: load_run(path))
    if isinstance(found, TrainyardError):
        assert path.name in str(found) or "training" in str(found), found
    place.check()


_RATIOS = ({"en": 0.75, "fr": 0.25}, [{"ratio": 0.75, "dataset_path": "a/en"}, {"weight": 0.25, "path": "a/fr"}])


@cases(60)
@given(content=st.sampled_from(_RATIOS).flatmap(odd_json))
def test_ratios_of_a_blend(new_place: NewPlace, content: bytes) -> None:
    place = new_place()
    path = place.inside / "ratios.json"
    path.write_bytes(content)
    found = attempt(lambda: ratios_in(path, ["en", "fr"]))
    if isinstance(found, TrainyardError):
        assert path.name in str(found), found
    else:
        assert len(found) == 2 and all(0 < each < float("inf") for each in found)
    place.check()


_NESTED = {
    "lists": "a: " + "[" * 20_000 + "]" * 20_000,
    "mappings": "a: " + "{b: " * 5_000 + "1" + "}" * 5_000,
    "blocks": "".join(f"{' ' * level}a:\n" for level in range(5_000)),
    "aliases": "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *a]\n" for n in range(60)),
    "doubling": "x0: &x0 [y]\n" + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" for n in range(1, 60)),
    "itself": "a: &a [*a]\n",
    "digits": "a: " + "1" * 100_000 + "\n",
    "exponent": "a: 1e99999\n",
    "tag": "a: !!python/object/apply:os.system [true]\n",
    "binary": "a: !!binary ////\n",
    "merge": "a: &a {b: 1}\nc: {<<: *a}\n",
    "documents": "a: 1\n---\nb: 2\n",
    "set": "? a\n? b\n",
    "bell": "a: \x07\n",
    "surrogate": 'a: "\\ud800"\n',
}


@pytest.mark.parametrize("text", _NESTED.values(), ids=_NESTED)
def test_yaml_that_outgrows_its_reader(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tr900a-28K-small.yaml"
    path.write_text(text, encoding="utf-8")
    assert isinstance(attempt(lambda: load_run(path)), TrainyardError)
    attempt(lambda: read_yaml(path))


@cases(40)
@given(put=odd_entries())
def test_what_stands_where_a_runs_file_is_expected(new_place: NewPlace, put: Callable[[Place, Path], None]) -> None:
    place = new_place()
    path = place.inside / "tr900a-28K-small.yaml"
    path.write_text("why: tests\n", encoding="utf-8")
    put(place, path)
    assert isinstance(attempt(lambda: load_run(path)), TrainyardError)
    place.check()


_KEYS = ["model.hidden_size", "training.steps", "optimizer.learning_rate", "data.split", "", "training", "no.such.key"]


@cases(150)
@given(key=st.sampled_from(_KEYS), value=st.sampled_from(ODD_TEXTS))
def test_a_value_of_a_command_line(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "tr900a-28K-small.yaml"
    path.write_text(SMALL_RUN, encoding="utf-8")
    attempt(lambda: load_run(path, [f"--{key}", value]))


_SCHEMES = ["file", "s3", "gs", "hf", "S3", "FILE", "http", "https", "ftp", "", "s3a", "hf ", "datasets"]
_SECRET = "hunter2SECRET"


@cases(300)
@given(
    scheme=st.sampled_from(_SCHEMES),
    parts=st.lists(st.sampled_from(["bucket", "datasets", "buckets", "org", "repo", "a@b", *ODD_TEXTS]), max_size=4),
    ending=st.sampled_from(["", "/", "//", "?versionId=1", "#part", " ", "@main", "%2e%2e"]),
)
def test_an_address(scheme: str, parts: list[str], ending: str) -> None:
    text = f"{scheme}://{'/'.join(parts)}{ending}"
    found = attempt(lambda: parse_location(text))
    if not isinstance(found, TrainyardError):
        assert str(parse_location(str(found))) == str(found)
        assert ".." not in found.path.split("/")
        assert str(found).isprintable()


_FORMS = [
    "s3://KEY:{}@bucket/p",
    "s3://KEY:a/{}@bucket/p",
    "s3://KEY:{}/b@bucket/p",
    "S3://KEY:{}@bucket/p",
    "s3://KEY%3A{}%40bucket/p",
    "s3://{}@bucket/p",
    "s3://bucket/p?X-Amz-Credential=KEY&X-Amz-Signature={}",
    "gs://bucket/p?GoogleAccessId=a&Signature={}",
    "gs://user:{}@bucket/p",
    "hf://user:{}@org/repo",
    "hf://org/repo?token={}",
    "file://user:{}@host/p",
    "https://user:{}@host/p",
    "HTTPS://user:{}@host/p?sig={}",
    "https://storage.example/p?sig={}",
    "s3://bucket/p#secret={}",
    " s3://KEY:{}@bucket/p ",
    "s3:KEY:{}@bucket/p",
    "s3:/KEY:{}@bucket",
    "KEY:{}@bucket/p",
]


@cases(200)
@given(form=st.sampled_from(_FORMS), prefix=st.sampled_from(["", "/x", "/x/{run}"]))
def test_a_secret_in_an_address_is_refused_and_not_repeated(form: str, prefix: str) -> None:
    text = form.replace("{}", _SECRET) + prefix
    for parse in (parse_location, lambda text: run_location(text, "tr1-x")):
        found = attempt(lambda parse=parse: parse(text))  # type: ignore[misc]
        assert isinstance(found, TrainyardError), text
        assert _SECRET not in str(found)


@cases(100)
@given(form=st.sampled_from(_FORMS), key=st.sampled_from(["storage.locations", "storage", "why", "checkpoint.to"]))
def test_a_secret_in_a_runs_file_or_command_line_is_not_repeated(tmp_path: Path, form: str, key: str) -> None:
    secret = form.replace("{}", _SECRET)
    path = tmp_path / "tr900a-28K-small.yaml"
    path.write_text(SMALL_RUN, encoding="utf-8")
    found = attempt(lambda: load_run(path, [f"--{key}", dump_yaml([{"to": secret}]).strip()]))
    assert key == "why" or isinstance(found, TrainyardError)
    if key.startswith("storage"):
        assert _SECRET not in str(found)
