"""Runs whose checkpoints others published: `published/*.yaml`, one file a group, edited by people.

What these files say was declared by somebody at some time. Nothing of it is looked at by a machine, and the tables say
so: a location is unverified, a state is as declared.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from megatron_patches.configuration.section import Section
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.foreign.names import check_name

FOLDER = "published"
State = Literal["ready", "queued", "running", "finished", "failed", "stale", "deprecated", "unknown"]


class DeclaredLocation(Section):
    """Where something lies, as its owners wrote it."""

    at: str = Field(min_length=1, description="path or address, letter by letter")
    truncated: bool = Field(False, description="the address ends before its last part")
    note: str = Field("", description="what is odd about it")


class DeclaredGold(Section):
    """A checkpoint that its owners singled out."""

    name: str = Field(description="what they call it")
    at: str = Field(description="path or address, letter by letter")
    step: int | None = Field(None, description="steps; unset where they do not say")
    metric: str | None = Field(None, description="what it was chosen by; unset where nothing was measured yet")
    value: float | None = Field(None, description="of the metric, in its own unit")
    why: str = Field(description="how it was made and why it counts")


def _is_name(text: str) -> str:
    return check_name(text, "a published run")


class PublishedRun(Section):
    """One run as it was published."""

    name: Annotated[str, AfterValidator(_is_name)] = Field(description="under which it was published")
    run: str | None = Field(None, description="its name under train/; unset where it is not there")
    group: str = Field("", description="heading that it stood under")
    state: State = Field("unknown", description="as declared; a reason goes with deprecated")
    declared: str = Field("", description="the state in its owners' words")
    reason: str = Field("", description="why it is deprecated")
    baseline: str | None = Field(None, description="run that it differs from")
    steps: int | None = Field(None, description="optimizer steps trained; unset where not known")
    tokens: int | None = Field(None, description="tokens trained on; unset where not known")
    metrics: dict[str, float] = Field({}, description="best value by name of the metric, in its own unit")
    gold: list[DeclaredGold] = Field([], description="checkpoints that were singled out")
    trackers: list[str] = Field([], description="projects, groups and names in experiment trackers")
    locations: list[DeclaredLocation] = Field([], description="where checkpoints and logs lie")
    details: dict[str, str] = Field({}, description="what else was said, by heading: configuration, jobs, dataset")
    notes: str = Field("", description="remarks of its owners")


class PublishedGroup(Section):
    """One file: runs that were published together."""

    title: str = Field(description="who published them")
    source: str = Field(description="public document that the entries were taken from")
    preface: str = Field("", description="what holds for all of them")
    runs: list[PublishedRun] = Field(description="in the order of the document")


def read_published(checkout: Path) -> list[PublishedGroup]:
    """All groups, by their files' names.

    Raises:
        TrainyardError: a file is not as it must be, or two runs share a name.
    """
    groups, problems = scan_published(checkout)
    refuse(problems)
    return groups


def scan_published(checkout: Path) -> tuple[list[PublishedGroup], list[str]]:
    """The same for a view, which goes on: what can be read, and a sentence for each thing that is wrong."""
    groups, problems = [], []
    for path in sorted((checkout / FOLDER).glob("*.yaml")):
        try:
            groups.append(_read_group(path))
        except TrainyardError as error:
            problems.append(str(error))
    counts = Counter(run.name for group in groups for run in group.runs)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        problems.append(f"{FOLDER}/ has {', '.join(twice)} more than once; give each run an entry of its own")
    return groups, problems


def _read_group(path: Path) -> PublishedGroup:
    try:
        return PublishedGroup.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise TrainyardError(f"{path}: {problems}") from None
