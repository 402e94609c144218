"""Credentials in addresses: found in every form, cut out of text, and plain addresses left alone."""

import pytest

from megatron_patches.foreign.credentials import holds_credentials, told, without_credentials

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
