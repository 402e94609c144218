"""gs://: Google Cloud Storage through gcsfs, which finds credentials as Google's own clients do."""

import base64
import os
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.storage.object_store import ObjectStore, connection_failed, md5_of_parts
from megatron_patches.artefacts.storage.store import AccessRefused, NotThere, TransientFailure, client_failed

_HELP = "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"


class GoogleStore(ObjectStore):
    """A bucket, or a part of one."""

    package = "gcsfs"

    def _open(self) -> Any:
        # its other class asks for the kind of a bucket by gRPC, 60 s for one try where only HTTP passes
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        from gcsfs.core import GCSFileSystem

        # an emulator (STORAGE_EMULATOR_HOST) knows nobody; asking Google who we are would take its time-out
        token = {"token": "anon"} if os.environ.get("STORAGE_EMULATOR_HOST") else {}
        try:
            return GCSFileSystem(skip_instance_cache=True, use_listings_cache=False, **token)
        except Exception as error:
            raise AccessRefused(f"{self.location}: Google's client finds no credentials; {_HELP}") from error

    def _evidence(self, info: dict[str, Any]) -> dict[str, str]:
        stated = info.get("md5Hash")
        return {"md5": base64.b64decode(stated).hex()} if stated else {}

    def _expected(self, local: Path, size: int, stated: dict[str, str]) -> dict[str, str]:
        return {"md5": md5_of_parts(local, size, max(size, 1))[0]} if stated else {}

    def _explain(self, error: Exception) -> Exception:
        code, text = _code_of(error), type(error).__name__
        if code == 401:
            return AccessRefused(f"{self.location}: the credentials are not known, or have expired; {_HELP}")
        if code == 403 or isinstance(error, PermissionError):
            return AccessRefused(f"{self.location}: access denied; ask for permission, or {_HELP}")
        if code == 404 or isinstance(error, FileNotFoundError):
            return NotThere(f"{self.location}: there is no such bucket; make it, or correct the address")
        if text in ("RefreshError", "DefaultCredentialsError"):
            return AccessRefused(f"{self.location}: the credentials have expired or are unknown; {_HELP}")
        if code in (408, 429) or code >= 500 or connection_failed(error) or isinstance(error, (OSError, RuntimeError)):
            return TransientFailure(f"{self.location}: {code or text}")
        return client_failed(self.location, error)

    def credentials(self) -> str:
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            source = "none: STORAGE_EMULATOR_HOST names an emulator"
        elif path := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            source = f"GOOGLE_APPLICATION_CREDENTIALS names {path}"
        else:
            source = f"Google's client by its own order ({type(self._filesystem.credentials.credentials).__name__})"
        self.entries("")
        return f"{source}; the bucket can be listed"


def _code_of(error: BaseException | None) -> int:
    while error is not None:
        code = getattr(error, "code", getattr(error, "status", None))
        if isinstance(code, (int, str)) and str(code).isdecimal():
            return int(code)
        error = error.__cause__ or error.__context__
    return 0


STORE = GoogleStore
