"""Addresses, names and links at every door of `tools/sync-to-hub`: the command line, YAML, variables, a listing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import told
from megatron_patches.launch.plan import main as plan
from megatron_patches.run.reading import load_run, to_yaml
from tests.megatron_patches.foreign.test_credentials import WITH
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_training import SmallData
from tools.commands.sync_to_hub import command_line as sync_to_hub

SECRETS = ("SECRET", "SEC/RET", "RET@", "AKIAIOS", "hf_abc", "GOOG1E")
STEP = "checkpoints/step-0000000100"

pytestmark = pytest.mark.usefixtures("places")


@pytest.fixture
def run(places: Path) -> Path:
    make_checkpoint(places / "runs", 100)
    return places / "runs" / RUN


@pytest.fixture
def victim(places: Path) -> Path:
    (places / "victim").mkdir()
    (places / "victim" / "id_rsa").write_text("precious")
    return places / "victim"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(sync_to_hub.app, list(arguments), catch_exceptions=True)


def said(done: Result) -> str:
    """All that a person sees."""
    return done.output + (told(done.exception) if isinstance(done.exception, TrainyardError) else "")


def write_run(places: Path, storage: Any) -> Path:
    path = SmallData(places / "data").write(places / "train" / "tr900-tests", RUN)
    path.write_text(f"{path.read_text()}storage: {json.dumps(storage)}\n")
    return path


def written(places: Path) -> str:
    """Names and texts of everything that is there."""
    files = [path for path in places.rglob("*") if path.is_file() and "train" not in path.parts]
    return "\n".join([*map(str, places.rglob("*")), *(path.read_text(errors="replace") for path in files)])


@pytest.mark.parametrize("address", WITH)
def test_credentials_on_the_command_line(run: Path, places: Path, address: str) -> None:
    for arguments in (
        [RUN, "--to", address],
        [RUN, f"--to={address}/{{run}}"],
        ["--to", address],
        ["--all", "--to", address],
        ["pull", RUN, "--from", address],
        ["pull", address, "--from", "file:///x"],
        ["auth", address],
        [address],
        [RUN, "--unknown", address],
        ["push", RUN, "more", address],
    ):
        done = call(*arguments)
        assert isinstance(done.exception, TrainyardError), (arguments, done.output)
        assert not any(secret in done.output + str(done.exception) for secret in SECRETS), arguments
    assert not any(secret in written(places) for secret in SECRETS)


PLACES: dict[str, Callable[[str], Any]] = {
    "to": lambda address: {"locations": [{"to": address}]},
    "what": lambda address: {"locations": [{"to": "file:///x", "what": [address]}]},
    "a list": lambda address: {"locations": [{"to": [address]}]},
    "no section": lambda address: {"locations": [address]},
    "no list": lambda address: {"locations": address},
    "nothing": lambda address: address,
    "a key": lambda address: {"locations": [{"to": "file:///x", address: 5}]},
    "a default": lambda address: {"locations": [{"to": f"${{UNSET:-{address}}}"}]},
}
"""where an address may stand in a run's file"""


@pytest.mark.parametrize(
    ("address", "place"),
    [
        *((address, "to") for address in WITH),
        *(
            (address, place)
            for place in PLACES
            for address in ("S3://KEY:SEC/RET@bucket/p", "gs://b/p?Signature=SECRET")
        ),
    ],
)
def test_credentials_in_a_runs_file(
    run: Path, places: Path, address: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(places, PLACES[place](address))
    with pytest.raises(TrainyardError) as caught:
        load_run(path)
    done = call("--all")
    assert done.exit_code != 0
    assert plan([str(path), "--local", "--storage.locations", f'[{{to: "{address}"}}]']) == 2
    assert plan([str(path), "--local", address]) == 2
    if "://" in address and "\n" not in address:
        shown = said(done) + str(caught.value) + capsys.readouterr().err
        assert not any(secret in shown for secret in SECRETS)
    assert not any(secret in written(places) for secret in SECRETS)


def test_a_variable_is_written_down_as_it_is(run: Path, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE", f"file://{places}/hidden-archive")
    config = load_run(write_run(places, {"locations": [{"to": "${ARCHIVE}/runs"}]}))
    assert "${ARCHIVE}/runs" in to_yaml(config)
    assert "hidden-archive" not in to_yaml(config)
    done = call("--all")
    assert done.exit_code == 0, said(done)
    assert (places / "hidden-archive" / "runs" / RUN / STEP / "manifest.json").is_file()
    assert {copy.location for copy in read_copies(run)} == {f"${{ARCHIVE}}/runs/{RUN}"}
    assert "hidden-archive" not in said(done)
    assert "present" in said(call(RUN, "--to", "${ARCHIVE}/runs"))
    assert "present" in said(call("pull", RUN, "--from", "${ARCHIVE}/runs"))


@pytest.mark.parametrize("value", ["s3://KEY:SEC/RET@bucket", "ftp://SECRET", "file:///SECRET/../x"])
def test_values_of_variables_are_not_shown(
    run: Path, places: Path, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE", value)
    write_run(places, {"locations": [{"to": "${ARCHIVE}/runs"}]})
    for arguments in (
        ["--all"],
        [RUN, "--to", "${ARCHIVE}"],
        ["pull", RUN, "--from", "${ARCHIVE}"],
        ["auth", "${ARCHIVE}"],
    ):
        done = call(*arguments)
        assert isinstance(done.exception, TrainyardError)
        assert "${ARCHIVE}" in str(done.exception)
        assert not any(secret in said(done) for secret in SECRETS)
    monkeypatch.delenv("ARCHIVE")
    assert "the variable ARCHIVE is not set" in said(call("--all"))


@pytest.mark.parametrize(
    "address", ["file://~/x", "file://host/x", "hf://spaces/org/repo", "hf://datasets/repo", "s3://bucket/../x"]
)
def test_addresses_that_mean_something_else_are_refused_at_every_door(run: Path, places: Path, address: str) -> None:
    before = written(places)
    for arguments in ([RUN, "--to", address], ["pull", RUN, "--from", address], ["auth", address]):
        assert isinstance(call(*arguments).exception, TrainyardError)
    assert written(places) == before
    with pytest.raises(TrainyardError, match=r"storage\.locations\[0\]\.to"):
        load_run(write_run(places, {"locations": [{"to": address}]}))


def test_localhost_is_this_machine(run: Path, places: Path) -> None:
    assert call(RUN, "--to", f"FILE://localhost{places}/archive").exit_code == 0
    assert (places / "archive" / RUN / STEP / "manifest.json").is_file()


def test_names_of_a_listing_are_checked(run: Path, places: Path) -> None:
    call(RUN, "--to", f"file://{places}/archive")
    there = places / "archive" / RUN / "checkpoints"
    for name in ("\x1b]52;c;AAAA\x07", "-rf", "a b", "x\ny", "\u202egnp", ".hidden", "a@1"):
        (there / name).mkdir()
        (there / name / "manifest.json").write_bytes((there.parent / STEP / "manifest.json").read_bytes())
    done = call("pull", RUN, "--from", f"file://{places}/archive", "--into", str(places / "into"))
    assert done.exit_code == 1, "something was left out"
    assert [path.name for path in (places / "into" / RUN / "checkpoints").iterdir()] == ["step-0000000100"]
    assert done.output.count("cannot be the name of an artefact") == 7
    assert r"\x1b]52" in done.output
    assert all(line.isprintable() for line in done.output.splitlines())


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "-x", "a\nb", "\x1b[0m", "a/b", "a@5", ""])
def test_names_of_runs_that_are_pulled(places: Path, name: str) -> None:
    done = call("pull", "--from", f"file://{places}/archive", "--", name)
    assert isinstance(done.exception, TrainyardError), done.output
    assert "cannot be the name of a run" in str(done.exception)
    assert str(done.exception).isprintable()


def test_links_out_of_a_run_are_not_sent(run: Path, places: Path, victim: Path) -> None:
    for name in ("logs", "events"):
        (run / name).mkdir()
        (run / name / "0001.log").write_text("said\n")
    (run / "logs" / "x").symlink_to(victim / "id_rsa")
    (run / "logs" / "again.log").symlink_to("0001.log")
    (run / "events" / "folder").symlink_to(victim)
    (run / "logs" / "older").mkdir()
    (run / "logs" / "newest").symlink_to("older")
    (run / "logs" / "nowhere").symlink_to("gone")
    (run / "logs" / "lost").symlink_to("x" * 300)  # cannot even be looked at
    (run / "checkpoints" / "step-0000000999").symlink_to("x" * 300)
    os.mkfifo(run / "logs" / "pipe")
    (run / "tensorboard").symlink_to(victim)
    done = call(RUN, "--to", f"file://{places}/archive", "--what", "logs,tensorboard")
    assert done.exit_code == 1
    assert "step-0000000999 cannot be looked at" in call(RUN, "--to", f"file://{places}/other").output
    for name in ("logs/x", "events/folder"):
        assert f"{name}: is a link to what lies elsewhere, and is not sent" in done.output
    assert "logs/pipe: is neither a file nor a folder, and is not sent" in done.output
    assert "newest" not in done.output and "nowhere" not in done.output
    sent = {path.name for path in (places / "archive").rglob("*") if path.is_file()}
    assert sent == {"0001.log", "again.log", "index.json"}
    assert "precious" not in written(places / "archive")


def test_artefacts_whose_files_are_links_are_not_sent(run: Path, places: Path, victim: Path) -> None:
    file = run / STEP / "config.yaml"
    (victim / "config.yaml").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(victim / "config.yaml")
    done = call(RUN, "--to", f"file://{places}/archive")
    assert done.exit_code == 1
    assert "is a link to what lies elsewhere" in done.output


@pytest.mark.parametrize("name", ["checkpoints", "logs"])
def test_a_pull_goes_through_no_planted_link(run: Path, places: Path, victim: Path, name: str) -> None:
    (run / "logs").mkdir()
    (run / "logs" / "0001.log").write_text("said\n")
    assert call(RUN, "--to", f"file://{places}/archive", "--what", "checkpoints,logs").exit_code == 0
    (places / "shared" / RUN).mkdir(parents=True)
    (places / "shared" / RUN / name).symlink_to(victim)
    arguments = ["--from", f"file://{places}/archive", "--into", str(places / "shared"), "--what", "checkpoints,logs"]
    done = call("pull", RUN, *arguments)
    assert done.exit_code == 1
    assert "through a link" in done.output
    assert [path.name for path in victim.iterdir()] == ["id_rsa"]


def test_a_runs_folder_may_be_a_link_of_ones_own(
    run: Path, places: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(RUN, "--to", f"file://{places}/archive").exit_code == 0
    (places / "shared").mkdir()
    (places / "shared" / RUN).symlink_to(victim)
    arguments = ["pull", RUN, "--from", f"file://{places}/archive", "--into", str(places / "shared")]
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result([0o120777, 0, 0, 1, 54321, 0, 0, 0, 0, 0]))
    assert "is a link of another user" in said(call(*arguments))
    assert [path.name for path in victim.iterdir()] == ["id_rsa"]
    monkeypatch.undo()
    assert call(*arguments).exit_code == 0
    assert (victim / STEP / "manifest.json").is_file()


def test_without_a_location_or_runs_there_is_nothing_to_come_back_for(places: Path) -> None:
    assert "is no folder; export TRAINYARD_RUNS" in said(call("--all"))
    make_checkpoint(places / "runs", 100)
    done = call("--all")
    assert isinstance(done.exception, TrainyardError)
    assert "no run in " in str(done.exception)
    assert "names storage.locations" in str(done.exception)


def test_a_location_that_refuses_ends_with_code_2(run: Path, places: Path) -> None:
    (places / "archive").write_text("a file")
    done = call(RUN, "--to", f"file://{places}/archive", "--tries", "1")
    assert done.exit_code == 2
    assert "name another location" in done.output


def test_the_help_keeps_its_examples_apart() -> None:
    shown = call("--help").output
    assert "\n  tools/sync-to-hub --all " in shown
    assert "\\[" not in call("pull", "--help").output + call("push", "--help").output
