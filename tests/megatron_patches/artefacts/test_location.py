"""Addresses: read one way, or refused with the remedy; credentials in them are never shown."""

import pytest

from megatron_patches.artefacts.location import Location, fill_in, parse_location, run_location
from megatron_patches.errors import TrainyardError
from tests.megatron_patches.foreign.test_credentials import WITH

SECRETS = ("SECRET", "SEC/RET", "SEC", "AKIA", "hf_abc", "GOOG1")


@pytest.mark.parametrize(
    ("text", "scheme", "path"),
    [
        ("file:///x/y/", "file", "/x/y"),
        ("file://localhost/x", "file", "/x"),
        ("FILE://LOCALHOST/x", "file", "/x"),
        ("file:////x//y/./z", "file", "/x/y/z"),
        ("file:///data@snapshot/a b", "file", "/data@snapshot/a b"),
        ("  s3://bucket/runs/  ", "s3", "bucket/runs"),
        ("S3://Bucket/Runs", "s3", "Bucket/Runs"),
        ("gs://bucket", "gs", "bucket"),
        ("gs://bucket/{run}/x", "gs", "bucket/{run}/x"),
        ("hf://org/repo", "hf", "org/repo"),
        ("HF://org/repo@main/folder", "hf", "org/repo@main/folder"),
        ("hf://org/{run}", "hf", "org/{run}"),
        ("hf://models/org/repo/folder", "hf", "org/repo/folder"),
        ("hf://datasets/org/repo", "hf", "datasets/org/repo"),
        ("hf://buckets/org/bucket/folder", "hf", "buckets/org/bucket/folder"),
        ("s3://${BUCKET}/runs", "s3", "${BUCKET}/runs"),
        ("file://${HOME}/runs", "file", "${HOME}/runs"),
        ("${ARCHIVE}/runs", "", "${ARCHIVE}/runs"),
    ],
)
def test_addresses_that_are_read(text: str, scheme: str, path: str) -> None:
    assert parse_location(text) == Location(scheme, path)
    assert parse_location(str(parse_location(text))) == parse_location(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bucket/x", "is not an address"),
        ("file:/x", "is not an address"),
        ("ftp://x", "no storage ftp"),
        ("file://~/x", "~ is not understood"),
        ("file:///~/x", "~ is not understood"),
        ("file://host/x", "names a machine"),
        ("file://x", "names a machine"),
        ("file://localhost.localdomain/x", "names a machine"),
        ("file://./x", "names a machine"),
        ("file:///", "name a folder"),
        ("file://", "name a folder"),
        ("file:///a/../b", r"\.\. and spaces"),
        ("s3://", "name a bucket"),
        ("s3:///x", "name a bucket"),
        ("s3://host:9000/bucket", "name a bucket"),
        ("s3://b cket/x", "name a bucket"),
        ("s3://bucket/a/../b", r"\.\. and spaces"),
        ("s3://bucket//x", "empty or a dot"),
        ("s3://bucket/./x", "empty or a dot"),
        ("s3://bucket/ x", r"\.\. and spaces"),
        ("s3://bucket/%2e%2e/x", "percent signs"),
        ("s3://bucket/x?versionId=5", "no query, fragment"),
        ("s3://bucket/x#5", "no query, fragment"),
        ("s3://bucket\\x", "no query, fragment or backslash"),
        ("s3://bucket/{name}", "of braces only"),
        ("s3://bucket/$HOME", "of variables only"),
        ("s3://bucket/\x1b]52;c;\x07", "without control characters"),
        ("s3://bucket/a\nb", "without control characters"),
        ("s3://bucket/\u202ex", "without control characters"),
        ("hf://org", "hf://organisation/repository"),
        ("hf://datasets/repo", "hf://datasets/organisation/repository"),
        ("hf://buckets/org", "hf://buckets/organisation/bucket"),
        ("hf://spaces/org/repo", "hf://spaces/ is no place for copies"),
        ("hf://kernels/org/repo", "is no place for copies; there are hf://models/"),
        ("hf://Datasets/org/repo", "is no place for copies; there are hf://models/"),
        ("hf://dataset/org/repo", "is no place for copies; there are hf://models/"),
        ("hf://org/re po", "the hub's names"),
        ("hf://org/repo/x@main", "the revision follows"),
        ("hf://org/repo@refs/pr/1", "a revision with slashes"),
        ("hf://datasets/org/repo@refs/convert/parquet/x", "a revision with slashes"),
        ("hf://buckets/org/bucket@main", "has no revisions"),
    ],
)
def test_addresses_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(TrainyardError, match=said) as caught:
        parse_location(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", WITH)
def test_credentials_are_refused_and_never_shown(text: str) -> None:
    for given in (text, f"{text}/{{run}}", f" {text} "):
        with pytest.raises(TrainyardError, match="holds no credentials") as caught:
            run_location(given, "tr1")
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_where_a_run_lies_at_an_address() -> None:
    assert str(run_location("s3://bucket/runs/", "tr1")) == "s3://bucket/runs/tr1"
    assert str(run_location("hf://org/{run}", "tr1")) == "hf://org/tr1"
    assert str(run_location("s3://bucket/${run}", "tr1")) == "s3://bucket/${run}/tr1"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("s3://${B}/runs", "bucket/runs"),
        ("${S3}/runs", "bucket/top/runs"),
        ("s3://${UNKNOWN:-other}/runs", "other/runs"),
        ("file://${FOLDER}/runs", "/folder/runs"),
        ("${UNKNOWN:-s3://bucket}/runs", "bucket/runs"),
    ],
)
def test_variables_get_their_values_and_are_shown_as_they_were_written(text: str, path: str) -> None:
    environment = {"B": "bucket", "S3": "s3://bucket/top", "FOLDER": "/folder"}
    found = fill_in(run_location(text, "tr1"), environment)
    assert found.path == f"{path}/tr1"
    assert str(found) == f"{text}/tr1"
    assert str(found.beneath("x")) == f"{text}/tr1/x"
    assert fill_in(parse_location("s3://bucket/x"), environment) == Location("s3", "bucket/x")


@pytest.mark.parametrize(
    "value",
    [
        "s3://KEY:SEC/RET@bucket",
        "SECRET://x",
        "s3://bucket?sig=SECRET",
        "s3://SECRET/../x",
        "s3://b/${SECRET}",
        "SECRET",
    ],
)
def test_values_of_variables_are_never_shown(value: str) -> None:
    with pytest.raises(TrainyardError, match=r"\$\{ARCHIVE\}/x") as caught:
        fill_in(parse_location("${ARCHIVE}/x"), {"ARCHIVE": value})
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(TrainyardError, match=r"the variable BUCKET is not set; export BUCKET=\.\.\."):
        fill_in(parse_location("s3://${BUCKET}/x"), {"BUCKET": ""})
