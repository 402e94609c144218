"""What a name may be: of a run, an artefact, or a file that becomes one, whoever chose it."""

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

_MARKS = "._+=,-"
_BYTES = 200
"""maximum length in UTF-8; file systems take 255 bytes, and Trainyard adds endings"""

NAME_RULE = (
    f"a name begins with a letter or digit, goes on with letters, digits or {' '.join(_MARKS)}, and has at most "
)
NAME_RULE += f"{_BYTES} bytes"


def is_name(text: str) -> bool:
    """Whether a text may name a run or an artefact.

    Such a name is one part of a path or an address, no option of a command, has no part in `RUN@STEP`, and can be
    printed. Letters and digits are those of any alphabet.
    """
    if not text or not text[0].isalnum() or not all(each.isalnum() or each in _MARKS for each in text):
        return False
    return len(text.encode(errors="replace")) <= _BYTES and not text.endswith(".")


def check_name(text: str, of_what: str) -> str:
    """The name itself, where it may be one.

    Args:
        of_what: what would bear it, and where it was read, for the message: "a run (--run)".

    Raises:
        TrainyardError: it may not.
    """
    if not is_name(text):
        raise TrainyardError(f"'{shortened(text)}' cannot be the name of {of_what}: {NAME_RULE}")
    return text


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it; a file's name need not be such a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
