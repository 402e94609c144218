"""Credentials in addresses, whatever their form: found before an address is shown, and taken out of other text."""

import re
from urllib.parse import unquote

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable

SHOWN = "..."
"""what stands where credentials were"""

_BEGINNING = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9+.-]*)://|(file|s3|gs|hf|https?):)", re.IGNORECASE)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")
_WORD = re.compile(r"[^\s\"']+")
_NAME_END = re.compile(r"(?<=[^@/]):(?!//)(?!\d{1,5}(?:/|$))")
"""between a name and its password; what follows is no port, and not the rest of a scheme"""
_HOST_BEGIN = re.compile(r"@(?=.)(?!\d+(?![\w.@-])|sha256:[0-9a-f]{64}(?![0-9a-f@]))")
"""before a host; RUN@STEP and a container's digest have none"""
_WITH_REVISION = {"hf", "http", "https", "git", "ssh", "file"}
"""schemes of addresses that may have an @ behind their first part: a revision, or a folder's name"""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])("
    r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}"  # the hub
    r"|(?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{12,}"  # Amazon: 16 behind the prefix; a shortened one is no better
    r"|GOOG[A-Z0-9]{16,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_.-]{10,}"  # Google
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_.-]+"  # a JSON web token
    r")"
)
_PARAMETER_NAME = (
    r"(?i:(?<![a-z0-9_])("
    r"x-(amz|goog|ms)-[a-z-]+|(aws|goog|google)?_?access_?key(_?id)?|(aws_?)?secret(_?access)?(_?key)?"
    r"|(x_|session_?|security_?|access_?|auth_?|sas_?|hf_?|aws_?session_?|api_?)?token"
    r"|signature|sig|password|passwd|passphrase|pwd|api_?key|credentials?|private_?key|authorization|key_?id"
    r"))"
)
_PARAMETER = re.compile(rf"{_PARAMETER_NAME}\s*=")
_IN_QUERY = re.compile(rf"(?<=[?&;])({_PARAMETER_NAME}=)[^\s\"'&;)]+")
"""a parameter of a query of which the address is cut, as clients quote it: /bucket/key?X-Amz-Signature=..."""
_HEADER = re.compile(
    r"(?i)\b(authorization[\"']*\s*[:=]\s*[\"']*\w+\s+|bearer\s+(?=[^\s\"']*[0-9])(?=\S{16}))[A-Za-z0-9+/=._~-]+"
)
"""what follows an authorization's scheme in a request's header"""


def holds_credentials(address: str) -> bool:
    """Whether an address, well formed or not, holds what opens something: a name and password, a key, a signature.

    Forms that are written with percent signs are looked at too. A host's port is none.
    """
    forms = [address]
    while len(forms) < 4 and (decoded := unquote(forms[-1])) != forms[-1]:
        forms.append(decoded)
    return any(_holds(form) for form in forms)


def without_credentials(text: str) -> str:
    """A text, such as an error or a command line, in which each address with credentials is cut behind its scheme."""
    if "://" in text:
        text = _ADDRESS.sub(lambda found: f"{found[1]}://{SHOWN}" if holds_credentials(found[0]) else found[0], text)
    text = _HEADER.sub(rf"\1{SHOWN}", _IN_QUERY.sub(rf"\1{SHOWN}", text))
    return _TOKEN.sub(SHOWN, _WORD.sub(lambda found: _without_password(found[0]), text))


def refuse_credentials(text: str, of_what: str) -> None:
    """Raises Refused, without a quotation, where a text that is to be kept holds what opens something.

    Args:
        of_what: where the text is, for the message: "a note".
    """
    if without_credentials(text) != text:
        raise Refused(
            f"{of_what} seems to hold credentials, and others will read it; nothing was written. Leave them out: a "
            "key, a token, a signed address, or name:password@host"
        )


def told(error: BaseException) -> str:
    """An error's message as it is shown: without credentials, and with nothing that would steer a terminal."""
    return printable(without_credentials(str(error)), layout=True)


def _without_password(word: str) -> str:
    """A word of which a name and password before a host are cut, without a scheme or behind half of one."""
    hosts = [found.start() for found in _HOST_BEGIN.finditer(word)]
    colon = _NAME_END.search(word)
    if not hosts or colon is None or hosts[-1] <= colon.end():  # a password may hold an @ of its own
        return word
    name = max(word.rfind(mark, 0, colon.start()) for mark in "@/") + 1
    return f"{word[:name]}{SHOWN}{word[hosts[-1] :]}"


def _holds(address: str) -> bool:
    beginning = _BEGINNING.match(address)
    scheme = (beginning[1] or beginning[2]).lower() if beginning else ""
    rest = address[beginning.end() :] if beginning else address
    first = rest.split("/", 1)[0]
    if -1 < rest.find(":") < rest.rfind("@"):  # a secret may hold slashes, and line ends where it was pasted
        return True
    if "@" in (first if scheme in _WITH_REVISION else rest):
        return True
    if ":" in first and not re.fullmatch(r"[^:]*:\d{0,5}|\[[0-9a-fA-F:]+\](:\d{1,5})?", first):
        return True
    return _TOKEN.search(rest) is not None or _PARAMETER.search(rest.replace("-key", "_key")) is not None
