"""Text of others in pages steers neither tables nor links nor HTML."""

import pytest

from megatron_patches.foreign.markdown import markdown_code, markdown_text


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("lr_001_clean restart", "lr_001_clean restart"),
        ("a | b", r"a \| b"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("<img src=x onerror=y>&", "&lt;img src=x onerror=y&gt;&amp;"),
        ("`code` *bold* ~~gone~~", r"\`code\` \*bold\* \~\~gone\~\~"),
        ("one\n# two\r\n<!-- end of notes -->", "one # two &lt;!-- end of notes --&gt;"),
        ("\x1b[31m\u202e", r"\\x1b\[31m\\u202e"),
    ],
)
def test_text(text: str, page: str) -> None:
    assert markdown_text(text) == page


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("s3://bucket/a", "`s3://bucket/a`"),
        ("a`b", "``a`b``"),
        ("`a``", "``` `a`` ```"),
        ("a|b\nc", r"`a\|b c`"),
    ],
)
def test_code(text: str, page: str) -> None:
    assert markdown_code(text) == page
