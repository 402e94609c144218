"""s3://: Amazon's S3 and what speaks its protocol, through s3fs. Credentials, region and AWS_ENDPOINT_URL are found by
the AWS client itself.
"""

from pathlib import Path
from typing import Any

from megatron_patches.artefacts.storage.object_store import PART, ObjectStore, connection_failed, md5_of_parts
from megatron_patches.artefacts.storage.store import AccessRefused, NotThere, TransientFailure, client_failed
from megatron_patches.errors import TrainyardError

_REFUSED = {"AccessDenied", "403", "AllAccessDisabled"}
_UNKNOWN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthorizationHeaderMalformed"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}


class S3Store(ObjectStore):
    """A bucket, or a part of one."""

    package = "s3fs"

    def _open(self) -> Any:
        import s3fs

        # the sync tries again itself, and says so; the client's own tries would hide a broken line for minutes
        config = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}, "max_pool_connections": 32}
        filesystem = s3fs.S3FileSystem(config_kwargs=config, skip_instance_cache=True, use_listings_cache=False)
        filesystem.retries = 1
        return filesystem

    def _evidence(self, info: dict[str, Any]) -> dict[str, str]:
        tag = str(info.get("ETag", "")).strip('"')
        return {"etag": tag} if tag else {}

    def _expected(self, local: Path, size: int, stated: dict[str, str]) -> dict[str, str]:
        whole, of_parts, count = md5_of_parts(local, size, PART)
        if "-" not in stated.get("etag", ""):
            return {"etag": whole} if size <= PART else {}
        return {"etag": f"{of_parts}-{count}"}

    def _explain(self, error: Exception) -> Exception:
        code, text = _code_of(error), type(error).__name__
        if code in _EXPIRED:
            return AccessRefused(f"{self.location}: the credentials have expired ({code}); renew them and sync again")
        if code in _UNKNOWN:
            return AccessRefused(f"{self.location}: the server does not know these credentials ({code}); {_HELP}")
        if code == "400":  # the answer to a HEAD has no text that names the reason; the same again gets the same
            return AccessRefused(
                f"{self.location}: the server refuses the request (400), as it does where credentials have expired or "
                f"the region is another; renew them and sync again, or {_HELP}"
            )
        if code in _REFUSED or isinstance(error, PermissionError):
            return AccessRefused(f"{self.location}: access denied; ask for permission, or {_HELP}")
        if code in ("NoSuchBucket", "404") or isinstance(error, FileNotFoundError):
            return NotThere(f"{self.location}: there is no such bucket; make it, or correct the address")
        if text == "NoCredentialsError":
            return AccessRefused(f"{self.location}: the AWS client finds no credentials; {_HELP}")
        if text in ("ParamValidationError", "InvalidRegionError", "ProfileNotFound"):
            return TrainyardError(f"{self.location}: the AWS client refuses its settings ({text}); {_HELP}")
        if code.startswith("5") or code in _BUSY or connection_failed(error) or type(error).__module__ in _WIRE:
            return TransientFailure(f"{self.location}: {code or text}")
        if isinstance(error, OSError):
            return TransientFailure(f"{self.location}: {code or text}")
        return client_failed(self.location, error)

    def credentials(self) -> str:
        import botocore.session

        found = botocore.session.get_session().get_credentials()
        if found is None:
            raise AccessRefused(f"{self.location}: the AWS client finds no credentials; {_HELP}")
        self.entries("")
        return f"AWS client: {_SOURCES.get(found.method, found.method)}; the bucket can be listed"


_HELP = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure`"
_BUSY = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "BadDigest", "RequestTimeTooSkewed"}
_WIRE = ("botocore.exceptions", "aiobotocore.httpchecksum", "botocore.httpchecksum")
_SOURCES = {"env": "environment variables", "shared-credentials-file": "~/.aws/credentials", "iam-role": "IAM role"}


def _code_of(error: BaseException | None) -> str:
    """The server's own code for what went wrong: s3fs turns its answer into an OSError."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__ or error.__context__
    return ""


STORE = S3Store
