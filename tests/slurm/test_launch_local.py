"""`slurm/launch` without SLURM: the environment it enters, what it passes on, and how it ends."""

import ast
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.slurm.checkout import CHECKOUT, RUN, SmallCheckout
from tests.slurm.cluster import environment_without_settings


def start(
    checkout: SmallCheckout, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    # a test run that was started in the background ignores SIGINT, and so would everything that it starts
    return subprocess.Popen(
        ["env", "--default-signal=INT", "bash", str(checkout.script), *arguments],
        cwd=cwd or checkout.root,
        env={**environment_without_settings(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    checkout: SmallCheckout, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    process = start(checkout, *arguments, cwd=cwd, env=env)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def test_one_node_on_this_machine(checkout: SmallCheckout) -> None:
    assert run(checkout)[0] == 0
    assert checkout.planned() == [RUN, "--local"]
    arguments = checkout.node()["arguments"]
    port = arguments.pop(arguments.index("--port") + 1)
    assert 1024 <= int(port) < 65536
    sizes = ["--nodes", "1", "--processes", "3", "--host", "127.0.0.1", "--port", "--node-rank", "0"]
    assert arguments == [str(checkout.launch_directory), *sizes]
    assert checkout.node()["folder"] == str(checkout.root)
    assert checkout.node()["environment"]["PYTHONPATH"].split(":")[0] == str(checkout.root)


def test_arguments_reach_the_plan_as_they_were_quoted(checkout: SmallCheckout) -> None:
    overrides = ["--data.path", "a folder/with 'both' \"quotes\"", "--why", "$HOME *", "--empty", "", "--x=\n"]
    assert run(checkout, *overrides)[0] == 0
    assert checkout.planned() == [RUN, *overrides, "--local"]


@pytest.mark.parametrize("words", [["--eval-only"], ["--why", "x", "--eval-only=all"]])
def test_validation_alone_has_a_plan_of_its_own_which_says_what_ranks_run(
    checkout: SmallCheckout, words: list[str]
) -> None:
    assert run(checkout, *words)[0] == 0
    assert checkout.planned() == [RUN, *words, "--local"]
    assert checkout.node()["arguments"][-4:-2] == ["--rank", "megatron_patches.evaluation.eval_only.rank"]


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"STAND_IN_PLAN_CODE": "2"}, 2),
        ({"STAND_IN_PLAN_CODE": "1"}, 1),
        ({"STAND_IN": "fail"}, 7),
        ({"STAND_IN": "kill"}, 128 + signal.SIGKILL),
    ],
)
def test_exit_codes_are_passed_through(checkout: SmallCheckout, environment: dict[str, str], code: int) -> None:
    assert run(checkout, env=environment)[0] == code


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_to_stop(checkout: SmallCheckout, number: signal.Signals) -> None:
    process = start(checkout, env={"STAND_IN": "stop"})
    assert process.stdout is not None
    assert process.stdout.readline() == "node 0 listens\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "node 0 was asked to stop\n"
    assert process.returncode == 75


def test_the_second_interrupt_ends_the_run(checkout: SmallCheckout) -> None:
    process = start(checkout, env={"STAND_IN": "stubborn"})
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGUSR1)  # a request, however often, never ends it
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "node 0 was asked to stop\n"
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_a_request_that_comes_while_planning_waits_for_the_trainer(checkout: SmallCheckout) -> None:
    process = start(checkout, env={"STAND_IN": "stop", "STAND_IN_PLAN_SECONDS": "0.5"})
    assert process.stderr is not None
    assert process.stderr.readline() == "planning\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 75


def test_an_interrupt_while_planning_starts_nothing(checkout: SmallCheckout) -> None:
    process = start(checkout, env={"STAND_IN_PLAN_SECONDS": "60"})
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + signal.SIGINT
    assert not checkout.launch_directory.exists()


def test_the_script_finds_its_checkout_from_anywhere(checkout: SmallCheckout, tmp_path: Path) -> None:
    assert run(checkout, cwd=tmp_path)[0] == 0


def test_a_wrong_home_is_an_error_with_the_remedy(checkout: SmallCheckout, tmp_path: Path) -> None:
    code, _, stderr = run(checkout, env={"TRAINYARD_HOME": str(tmp_path)})
    assert code == 2
    assert str(tmp_path) in stderr
    assert "export TRAINYARD_HOME=CHECKOUT" in stderr


class TestEnvironment:
    def test_the_checkouts_own(self, checkout: SmallCheckout) -> None:
        run(checkout)
        assert checkout.node()["environment"]["STAND_IN_PYTHON"] == "checkout"

    def test_the_active_one_comes_first(self, checkout: SmallCheckout, tmp_path: Path) -> None:
        checkout.add_environment(tmp_path / "active", "active")
        run(checkout, env={"VIRTUAL_ENV": str(tmp_path / "active")})
        assert checkout.node()["environment"]["STAND_IN_PYTHON"] == "active"

    def test_a_missing_one_is_an_error_with_the_remedy(self, checkout: SmallCheckout, tmp_path: Path) -> None:
        code, _, stderr = run(checkout, env={"TRAINYARD_VENV": str(tmp_path / "nowhere")})
        assert (code, str(tmp_path / "nowhere") in stderr, "make install" in stderr) == (2, True, True)

    def test_missing_packages_are_named(self, checkout: SmallCheckout, tmp_path: Path) -> None:
        python = tmp_path / "bare/bin/python"
        python.parent.mkdir(parents=True)
        # -I -S: this interpreter, without any package
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        python.chmod(0o755)
        code, _, stderr = run(checkout, env={"TRAINYARD_VENV": str(tmp_path / "bare")})
        assert code == 2
        assert "lacks pydantic, torch, deepspeed, megatron" in stderr
        assert "make install" in stderr


class TestSite:
    def test_modules_venv_and_container(self, checkout: SmallCheckout, tmp_path: Path) -> None:
        checkout.add_environment(tmp_path / "site venv", "site")
        container = tmp_path / "my container"
        container.write_text('#!/bin/sh\nshift; STAND_IN_CONTAINER=yes exec "$@"\n')
        container.chmod(0o755)
        checkout.add_site(
            "here",
            'module() { export LOADED="$*"; }\n'
            'TRAINYARD_MODULES="gcc/12 cuda"\n'
            f"TRAINYARD_VENV='{tmp_path}/site venv'\n"
            f"TRAINYARD_CONTAINER=\"'{container}' exec\"\n",
        )
        overrides = ["--why", "two  words $HOME"]
        assert run(checkout, *overrides, env={"TRAINYARD_SITE": "here"})[0] == 0
        assert checkout.planned() == [RUN, *overrides, "--local"]
        seen = checkout.node()["environment"]
        assert (seen["LOADED"], seen["STAND_IN_PYTHON"], seen["STAND_IN_CONTAINER"]) == (
            "load gcc/12 cuda",
            "site",
            "yes",
        )

    def test_an_unknown_one_names_the_known(self, checkout: SmallCheckout) -> None:
        code, _, stderr = run(checkout, env={"TRAINYARD_SITE": "nowhere"})
        assert (code, "'nowhere'" in stderr, "example, jean-zay" in stderr) == (2, True, True)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("TRAINYARD_MODULES=gcc\n", "no `module` command"),
            ("module() { return 1; }\nTRAINYARD_MODULES=gcc\n", "`module load gcc` failed"),
            ("if then\n", "syntax error"),
            ("TRAINYARD_CONTAINER=no-such-program\n", "no-such-program"),
        ],
    )
    def test_a_broken_one_starts_nothing(self, checkout: SmallCheckout, text: str, said: str) -> None:
        checkout.add_site("broken", text)
        code, _, stderr = run(checkout, env={"TRAINYARD_SITE": "broken"})
        assert (code, said in stderr, checkout.launch_directory.exists()) == (2, True, False), stderr

    @pytest.mark.parametrize("path", sorted((CHECKOUT / "slurm/sites").glob("*.sh")), ids=lambda path: path.stem)
    def test_each_file_selects_itself(self, path: Path) -> None:
        command = ["bash", "-euc", 'SCRATCH=/scratch; source "$1"; printf %s "$TRAINYARD_SITE"', "bash", str(path)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == path.stem


@pytest.mark.parametrize("file", ["launch", "heartbeat.py", "job.py", "parent.py", "__init__.py"])
def test_launch_needs_no_newer_python_than_a_login_node_has(file: str) -> None:
    ast.parse((CHECKOUT / "slurm" / file).read_text(), feature_version=(3, 6))


def test_launch_without_a_run_tells_its_usage() -> None:
    done = subprocess.run([CHECKOUT / "slurm/launch"], capture_output=True, text=True)
    assert (done.returncode, "slurm/launch RUN.yaml" in done.stderr) == (2, True)
