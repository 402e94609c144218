"""Credentials in addresses: found in every form, cut out of text, and plain addresses left alone."""

from time import perf_counter

import pytest

from megatron_patches.errors import Refused
from megatron_patches.foreign.credentials import holds_credentials, refuse_credentials, told, without_credentials

WITH = [
    "s3://KEY:SECRET@bucket/p",
    "s3://KEY:SEC/RET@bucket/p",
    "S3://KEY:SEC/RET@bucket/p",
    "s3://KEY:SECRET/p",
    "s3://KEY@bucket/p",
    "s3://KEY%3ASECRET%40bucket/p",
    "s3://KEY%253ASECRET%2540bucket/p",
    "s3://bucket/p?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET",
    "s3://bucket/p&X-AMZ-SIGNATURE=SECRET",
    "gs://bucket/p?GoogleAccessId=a&Signature=SECRET",
    "gs://bucket/p?access_token=SECRET",
    "s3://bucket/p?AWSAccessKeyId=SECRET",
    "s3://bucket/p;secret_access_key=SECRET",
    "s3://bucket/AKIAIOSFODNN7EXAMPLE/p",
    "gs://GOOG1EABCDEFGHIJKLMNOPQ/p",
    "hf://user:SECRET@org/repo",
    "hf://SECRET@org/repo",
    "hf://org/repo@hf_abcdefghijklmnopqrstuvwx",
    "hf://org/hf_abcdefghijklmnopqrstuvwx/x",
    "file://user:SECRET@host/x",
    "file://user:SEC/RET@host/x",
    "https://user:SECRET@host/x",
    "azure://account/x?sv=1&sig=SECRET",
    "KEY:SECRET@bucket/p",
    "s3:KEY:SECRET@bucket/p",
    "s3:/KEY:SECRET@bucket",
    "s3://KEY:SEC\nRET@bucket/p",
]
WITHOUT = [
    "s3://bucket/runs",
    "s3://bucket/runs/tr1a:b",
    "hf://org/repo@main/folder",
    "hf://org/hf_checkpoints",
    "file:///data@snapshot/runs",
    "file:///data/tokens=5",
    "http://127.0.0.1:8080/x",
    "https://github.com/org/repo@v1",
    "gs://bucket/eos_token=5",
]


@pytest.mark.parametrize("address", WITH)
def test_found(address: str) -> None:
    assert holds_credentials(address)
    shown = without_credentials(f"error: {address.replace(chr(10), '')}: refused") if "://" in address else ""
    assert not any(part in shown for part in ("SEC", "RET@", "AKIA", "hf_a", "GOOG1"))


@pytest.mark.parametrize("address", WITHOUT)
def test_left_alone(address: str) -> None:
    assert not holds_credentials(address)
    assert without_credentials(f"error: {address}: refused") == f"error: {address}: refused"


def test_what_is_told_steers_no_terminal() -> None:
    error = ValueError("first\nsecond \x1b]52;c;AAAA\x07 at s3://KEY:SEC/RET@bucket/p")
    assert told(error) == "first\nsecond \\x1b]52;c;AAAA\\x07 at s3://..."


@pytest.mark.parametrize("text", [
    "the problem:run@100 is old", "tools/x.yaml:12:run-a@3/weights", "base:run@20, other:run@40", "a 10.0.0.1:29500@7",
    f"ghcr.io/org/image:tag@sha256:{'ab' * 32}", "git@github.com:org/repo.git", "at 12:30:15 of run@100",
    "/p?page=2&size=3", "?eos_token=5", "the bearer of configuration", "an authorization of 5 people",
])  # fmt: skip
def test_text_without_credentials_is_left_alone(text: str) -> None:
    assert without_credentials(text) == text


@pytest.mark.parametrize("text", [
    "KEY:SECRET@10.0.0.1", "KEY:SECRET@55@host", "KEY:p@55@SECRET@host", "host:8080@SECRET:SECRET@host",
    "Max retries exceeded with url: /b/k?X-Amz-Date=1&X-Amz-Signature=SECRET (Caused by x)",
    "bucket/p?sig=SECRET", "https:/host/x?a=b&token=SECRET", "{'Authorization': 'Basic SECRET=='}",
    "Authorization: Bearer SECRET", "headers Bearer SECRET0123456789ABC",
])  # fmt: skip
def test_credentials_are_cut_from_text(text: str) -> None:
    assert "SECRET" not in without_credentials(text)


@pytest.mark.parametrize(
    "part", ["a:", "a:b@", "@a:", "://", "?sig=", "a/b:", "bearer ", "1@:", "a://", "authorization:"]
)
def test_long_text_takes_no_time(part: str) -> None:
    started = perf_counter()
    without_credentials(part * 20_000)
    holds_credentials(part * 20_000)
    assert perf_counter() - started < 5  # a pattern that looks back from each place takes minutes


def test_what_is_kept_is_refused_with_credentials() -> None:
    refuse_credentials("better than run@100, see https://host/x", "a note")
    with pytest.raises(Refused, match="a note seems to hold credentials") as refused:
        refuse_credentials("lies at s3://KEY:SEC/RET@bucket/p", "a note")
    assert "KEY" not in str(refused.value)
