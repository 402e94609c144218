"""Text of others made safe for a terminal, a log or a page: what would steer the reader is shown as an escape."""

import unicodedata

# Cc: controls, which steer a terminal (ESC, OSC 52). Cf: format characters, which reorder or hide text (U+202E).
# Cs: lone surrogates, which no encoding can write. Zl, Zp: line ends that are none in a table. Co, Cn have no meaning.
_ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
_LAYOUT = "\n\t"


def printable(text: object, layout: bool = False) -> str:
    r"""Text in which each control, format or unencodable character is written as an escape such as `\x1b` or `\u202e`.

    A byte of a file name that is not UTF-8 (Python holds it as U+DC80 to U+DCFF) is written as `\xff`.

    Args:
        text: a string, or anything with a string form, such as an exception or a path.
        layout: keep line ends and tabs, as in a message of several lines.
    """
    given = str(text)
    if given.isascii() and given.isprintable():
        return given
    return "".join(_shown(character, layout) for character in given)


def _shown(character: str, layout: bool) -> str:
    if layout and character in _LAYOUT:
        return character
    if unicodedata.category(character) not in _ESCAPED:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for a byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def storable(text: object) -> str:
    r"""Text that every file can hold: a byte of a file's name that is not UTF-8 is written as `\xff`."""
    return "".join(_shown(each, False) if "\ud800" <= each <= "\udfff" else each for each in str(text))


def shortened(text: object, limit: int = 200) -> str:
    """The same on one line, cut in the middle to about `limit` characters: what an error quotes of a foreign file."""
    shown = printable(text)
    half = limit // 2
    return shown if len(shown) <= limit else f"{shown[:half]} ... {shown[-half:]}"
