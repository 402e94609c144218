"""A branch of a repository of the hub that is made when something is first sent to it."""

import re
from typing import Any

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.storage.store import NotThere

MAIN = "main"
"""the branch that every repository has"""
ATTRIBUTES = ".gitattributes"
"""by which the hub tells large files from small ones"""
_COMMIT = re.compile("[0-9a-f]{40}")


def make_branch(api: Any, repository: str, of_type: str, branch: str, location: Location) -> None:
    """Make a branch, unless there is one. It begins with the files of the main branch, and these go: whoever loads a
    model from it would find parts of another there.

    Args:
        api: the hub's client, an `HfApi`, whose errors are raised as they are.

    Raises:
        NotThere: a tag or a commit has the name.
    """
    from huggingface_hub import CommitOperationDelete

    known = api.list_repo_refs(repository, repo_type=of_type)
    if branch in {each.name for each in known.branches}:
        return
    if branch in {each.name for each in known.tags} or _COMMIT.fullmatch(branch):
        raise NotThere(f"{location}: {branch} is a tag or a commit, which takes no files; name a branch")
    api.create_branch(repository, branch=branch, repo_type=of_type, exist_ok=True)
    removed = [
        CommitOperationDelete(each.path, is_folder=not hasattr(each, "blob_id"))
        for each in api.list_repo_tree(repository, revision=branch, repo_type=of_type)
        if each.path != ATTRIBUTES
    ]
    if removed:
        message = f"{branch} begins empty"
        api.create_commit(repository, operations=removed, commit_message=message, revision=branch, repo_type=of_type)
