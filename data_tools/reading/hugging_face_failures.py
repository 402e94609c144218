"""What the libraries raise, said as errors of ours: what was wrong, where, and the remedy."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from data_tools.reading.hugging_face_client import HubFailure, HubUnreachable
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.printable import printable, shortened


class ColumnProblem(Exception):
    """A table lacks a column, or has something else in it than those before it; the message begins in mid-sentence."""


def copying_remedy(name: str, revision: str | None) -> str:
    """How to do without a network."""
    at = f" --revision {revision}" if revision else ""
    return (
        f"on a machine with a network, `hf download {name} --repo-type dataset{at}` copies it below HF_HOME, which "
        f"HF_HUB_OFFLINE=1 then reads here if it is the same folder; with `--local-dir FOLDER` it is read as hf:FOLDER"
    )


@contextmanager
def opening_failures(told: str, name: str, revision: str | None) -> Iterator[None]:
    """Tells what goes wrong while a dataset is looked up.

    Args:
        told: how errors call it.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except TrainyardError:
        raise
    except (HubUnreachable, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise TrainyardError(
            f"{told} cannot be had without a network: {_short(error)}; {copying_remedy(name, revision)}"
        ) from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise Refused(
            f"{told} is a program that makes data ({_short(error)}), and is never run; use a dataset of files of data, "
            f"such as its branch refs/convert/parquet"
        ) from None
    except (FileNotFoundError, EntryNotFoundError) as error:
        raise Missing(f"{told}: {_short(error)}; check its name and revision, or what files it holds") from None
    except (EOFError, zlib.error) as error:
        raise Damaged(f"{told} cannot be opened: {_short(error)}") from error
    except ValueError as error:
        if "onfig" not in str(error):  # "BuilderConfig 'x' not found", "Config name is missing"
            raise Damaged(f"{told} cannot be opened: {_short(error)}") from error
        raise Missing(f"{told}: {_short(error)}; name one as #CONFIGURATION after the name") from None
    except Exception as error:
        if (answer := _answer_told(told, error)) is None:
            raise
        raise answer from error


@contextmanager
def reading_failures(told: str) -> Iterator[None]:
    """Tells what goes wrong while a shard is read.

    Args:
        told: how errors call the shard.
    """
    try:
        yield
    except TrainyardError:
        raise
    except ColumnProblem as problem:
        raise TrainyardError(f"{told} {problem}") from None
    except (EOFError, zlib.error, ValueError, TypeError, KeyError) as error:  # pyarrow's are ValueErrors
        if lacking := re.match(r"No match for FieldRef\.Name\((.*?)\)", str(error)):
            raise TrainyardError(f"{told} has no column {lacking[1]!r}") from None
        raise Damaged(f"{told} cannot be read: {type(error).__name__}: {_short(error)}") from error
    except Exception as error:
        if (answer := _answer_told(told, error)) is None:
            raise
        raise answer from error


def _answer_told(told: str, error: Exception) -> TrainyardError | None:
    """An answer of the hub, or of the file system, as an error of ours; None if it is neither."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, (HubFailure, httpx2.TransportError)):  # the latter of a copy, which the library asks for
        return TrainyardError(f"{told}: {_short(error)}; start it again later, it goes on where it was")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        if status in (401, 403):
            return Missing(
                f"{told} is not there, or not open to you (the hub answered {status}); check its name, or set HF_TOKEN"
            )
        if status == 404:
            return Missing(f"{told} is not there (the hub answered 404); check its name and revision")
        return TrainyardError(f"{told}: the hub answered {status}: {_short(error)}")
    if isinstance(error, OSError):
        return TrainyardError(f"{told} cannot be read: {_short(error)}")
    return None


def _short(error: BaseException) -> str:
    return shortened(printable(" ".join(str(error).split())), 400)
