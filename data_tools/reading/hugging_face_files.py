"""Files of data of a dataset, on the hub or in a folder, as the library finds them; copied where that is asked for."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from megatron_patches.errors import TrainyardError


class DataFiles(NamedTuple):
    """The files of each split of one configuration."""

    builder: Any
    """the library's `DatasetBuilder`"""
    root: str
    """what the names of its files begin with"""
    repository: str | None
    """on the hub; None: they are here"""
    commit: str | None
    """of the repository; None: a folder"""
    revision: str | None = None
    """that this is the commit of"""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(str(name) for name in self.builder.config.data_files)

    def names(self, split: str) -> list[str]:
        """Paths of a split's files below the root, in order."""
        return [str(each).removeprefix(self.root).lstrip("/") for each in self.builder.config.data_files[split]]

    def identity(self, split: str) -> dict[str, JsonValue]:
        """What says that they are the same: a commit, or a hash of their names and sizes."""
        if self.commit is not None:
            return {"revision": self.commit}
        sizes = [f"{name}\0{(Path(self.root) / name).stat().st_size}\0" for name in self.names(split)]
        return {"fingerprint": hashlib.sha256("".join(sizes).encode(errors="surrogateescape")).hexdigest()}

    def copy(self, split: str) -> None:
        """Copies the files of a split below HF_HOME, where whole ones stay, and reads them there from now on."""
        from huggingface_hub import snapshot_download

        if self.repository is None:
            return
        names = self.names(split)
        described = ["README.md", ".huggingface.yaml", "dataset_infos.json"]
        literal = [name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]") for name in names]
        # by the revision, which the cache then knows by its name without a network
        folder = snapshot_download(
            self.repository, repo_type="dataset", revision=self.revision, allow_patterns=[*literal, *described]
        )
        if Path(folder).name != self.commit:
            raise TrainyardError(f"hf:{self.repository} was changed while it was copied; start it again")
        listed = self.builder.config.data_files[split]
        listed[:] = [f"{folder}/{name}" for name in names]


def files_of_folder(folder: Path, configuration: str | None, commit: str | None = None) -> DataFiles:
    """Files of a folder, found by their names as the library finds them."""
    root = str(folder.resolve())
    return DataFiles(_builder(root, configuration, None), root, None, commit)


def files_of_hub(name: str, configuration: str | None, revision: str | None, offline: bool) -> DataFiles:
    """Files of a dataset of the hub at one commit, the one that the revision names now.

    Args:
        offline: take the copy that lies below HF_HOME.
    """
    from huggingface_hub import HfApi, snapshot_download

    if offline:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
        return files_of_folder(folder, configuration, folder.name)
    commit = HfApi().dataset_info(name, revision=revision).sha
    if commit is None:
        raise TrainyardError(f"hf:{name}: the hub names no commit of it; name one as its revision")
    builder = _builder(name, configuration, commit)
    return DataFiles(builder, f"hf://datasets/{name}@{commit}", name, commit, revision)


def _builder(path: str, configuration: str | None, commit: str | None) -> Any:
    """The library's reader of these files, which has read none of them.

    The cache that it is given is empty: where the hub fails, the library takes what its cache has of any revision.
    """
    import datasets

    with tempfile.TemporaryDirectory(prefix="trainyard-hf-") as empty:
        builder = datasets.load_dataset_builder(path, configuration, revision=commit, cache_dir=empty)
    if hasattr(builder.config, "on_mixed_types"):
        # with "use_json" one number among the texts of a file puts quotation marks around all of them
        builder.config.on_mixed_types = None
    return builder
