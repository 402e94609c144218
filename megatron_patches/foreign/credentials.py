"""Credentials in addresses, whatever their form: found before an address is shown, and taken out of other text."""

import re
from urllib.parse import unquote

from megatron_patches.foreign.printable import printable

SHOWN = "..."
"""what stands where credentials were"""

_BEGINNING = re.compile(r"\s*(?:([A-Za-z][A-Za-z0-9+.-]*)://|(file|s3|gs|hf|https?):)", re.IGNORECASE)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://\S+")
_BARE = re.compile(r"[^\s\"'@/]+:(?!//)(?!\d{1,5}(?:/|$))[^\s\"'@]+@(?=\S)")
"""a name and password before a host, without a scheme or behind half of one"""
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
_PARAMETER = re.compile(
    r"(?i)(?<![a-z0-9_])("
    r"x-(amz|goog|ms)-[a-z-]+|(aws|goog|google)?_?access_?key(_?id)?|(aws_?)?secret(_?access)?(_?key)?"
    r"|(x_|session_?|security_?|access_?|auth_?|sas_?|hf_?|aws_?session_?|api_?)?token"
    r"|signature|sig|password|passwd|passphrase|pwd|api_?key|credentials?|private_?key|authorization|key_?id"
    r")\s*="
)


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
    return _TOKEN.sub(SHOWN, _BARE.sub(f"{SHOWN}@", text))


def told(error: BaseException) -> str:
    """An error's message as it is shown: without credentials, and with nothing that would steer a terminal."""
    return printable(without_credentials(str(error)), layout=True)


def _holds(address: str) -> bool:
    beginning = _BEGINNING.match(address)
    scheme = (beginning[1] or beginning[2]).lower() if beginning else ""
    rest = address[beginning.end() :] if beginning else address
    first = rest.split("/", 1)[0]
    if re.search(":[^@]*@", rest, re.DOTALL):  # a secret may hold slashes, and line ends where it was pasted
        return True
    if "@" in (first if scheme in _WITH_REVISION else rest):
        return True
    if ":" in first and not re.fullmatch(r"[^:]*:\d{0,5}|\[[0-9a-fA-F:]+\](:\d{1,5})?", first):
        return True
    return _TOKEN.search(rest) is not None or _PARAMETER.search(rest.replace("-key", "_key")) is not None
