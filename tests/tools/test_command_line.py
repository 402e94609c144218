"""What all verbs share: which Python they find, and how a mistake ends them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer

from tools.command_line import fill_lines

CHECKOUT = Path(__file__).resolve().parents[2]

VERB = """\
import os, signal, sys
import typer
from megatron_patches.errors import TrainyardError
from tools.command_line import run_app

app = typer.Typer(add_completion=False)

@app.command()
def main(word: str = "", fail: bool = False, interrupt: bool = False) -> None:
    if fail:
        raise TrainyardError("no such corpus; name another")
    if interrupt:
        os.kill(os.getpid(), signal.SIGINT)
    print(word, sys.executable, __file__)

if __name__ == "__main__":
    run_app(app, "say-word")
"""


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A checkout with one verb of two words."""
    for file in (
        "tools/__init__.py",
        "tools/verb",
        "tools/command_line.py",
        "tools/start.py",
        "tools/commands/__init__.py",
        "megatron_patches/__init__.py",
        "megatron_patches/errors.py",
        "tools/megatron_flags.py",
        "megatron_patches/foreign/__init__.py",
        "megatron_patches/foreign/credentials.py",
        "megatron_patches/foreign/printable.py",
        "megatron_patches/foreign/streams.py",
    ):
        (tmp_path / "yard" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / file, tmp_path / "yard" / file)
    (tmp_path / "yard" / "tools" / "commands" / "say_word.py").write_text(VERB)
    (tmp_path / "yard" / "tools" / "say-word").symlink_to("verb")
    return tmp_path / "yard"


def call(verb: Path, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {
        key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "TRAINYARD_VENV", "PYTHONPATH")
    }
    environment: Mapping[str, str] = {**clean, "TRAINYARD_PYTHON": sys.executable, **variables}
    return subprocess.run([verb, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_dashes_become_underscores_and_arguments_stay_whole(yard: Path, tmp_path: Path) -> None:
    done = call(yard / "tools" / "say-word", "--word", "two words", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("two words ")
    assert str(yard / "tools" / "commands" / "say_word.py") in done.stdout


def test_a_folder_named_tools_where_the_user_stands_is_not_taken(yard: Path, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise SystemExit('wrong tools')")
    assert call(yard / "tools" / "say-word", cwd=tmp_path).returncode == 0


def test_a_link_from_elsewhere(yard: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "say-word").symlink_to(yard / "tools" / "say-word")
    assert call(Path("say-word"), cwd=tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}").returncode == 0


def environment_with_python(folder: Path) -> Path:
    """An environment whose Python says its own name."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "this is {folder.name}"\n')
    python.chmod(0o755)
    return folder


def test_which_python(yard: Path, tmp_path: Path) -> None:
    verb = yard / "tools" / "say-word"
    own = environment_with_python(yard / ".venv")
    active = environment_with_python(tmp_path / "active")
    named = environment_with_python(tmp_path / "named")
    assert call(verb, cwd=tmp_path, TRAINYARD_PYTHON="").stdout == f"this is {own.name}\n"
    assert call(verb, cwd=tmp_path, TRAINYARD_PYTHON="", VIRTUAL_ENV=str(active)).stdout == "this is active\n"
    of_launches = {"TRAINYARD_VENV": str(named), "VIRTUAL_ENV": str(active)}
    assert call(verb, cwd=tmp_path, TRAINYARD_PYTHON="", **of_launches).stdout == "this is named\n"
    both = call(verb, cwd=tmp_path, TRAINYARD_PYTHON=str(named / "bin" / "python"), VIRTUAL_ENV=str(active))
    assert both.stdout == "this is named\n"
    shutil.rmtree(own)
    shutil.move(active / "bin" / "python", active / "bin" / "python3")
    path = f"{active / 'bin'}:{os.environ['PATH']}"
    assert call(verb, cwd=tmp_path, TRAINYARD_PYTHON="", PATH=path).stdout == "this is active\n"


def test_a_mistake_is_a_message_and_exit_code_2(yard: Path, tmp_path: Path) -> None:
    done = call(yard / "tools" / "say-word", "--fail", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no such corpus; name another\n")


def test_an_interrupt_is_one_line_at_work_and_while_modules_are_imported(yard: Path, tmp_path: Path) -> None:
    verb, module = yard / "tools" / "say-word", yard / "tools" / "commands" / "say_word.py"
    done = call(verb, "--interrupt", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    module.write_text(module.read_text().replace("import typer", "os.kill(os.getpid(), signal.SIGINT)\nimport typer"))
    done = call(verb, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("arguments", [["--word", "a"], ["--word", "a" * 100_000], ["--help"]])
def test_a_closed_pipe_ends_it_in_silence(yard: Path, tmp_path: Path, arguments: list[str]) -> None:
    done = into_closed_pipe(yard / "tools" / "say-word", *arguments)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_help_of_a_launch_may_be_read_in_part() -> None:
    done = into_closed_pipe(CHECKOUT / "slurm" / "launch", "--help")
    assert (done.returncode, done.stderr) == (0, "")


def into_closed_pipe(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command whose output no one reads."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment["TRAINYARD_PYTHON"] = sys.executable
    try:
        return subprocess.run(words, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)


def test_help_names_the_verb(yard: Path, tmp_path: Path) -> None:
    assert "tools/say-word" in call(yard / "tools" / "say-word", "--help", cwd=tmp_path).stdout


def test_paragraphs_of_help_are_filled_and_marked_ones_keep_their_lines() -> None:
    app = typer.Typer(add_completion=False)

    def verb() -> None:
        """First, in
        two lines.

        Second, in
        two lines.

        \b
        say-word \\
          --fail
        """

    app.command()(verb)
    app.command("bare")(lambda: None)
    fill_lines(app)
    assert [command.help for command in app.registered_commands] == [
        "First, in two lines.\n\nSecond, in two lines.\n\n\b\nsay-word \\\n  --fail",
        None,
    ]


def test_an_unknown_option_ends_with_exit_code_2(yard: Path, tmp_path: Path) -> None:
    assert call(yard / "tools" / "say-word", "--nothing", cwd=tmp_path).returncode == 2


class TestBeforeMakeInstall:
    def test_a_python_without_the_packages(self, yard: Path, tmp_path: Path) -> None:
        bare = tmp_path / "bare" / "bin" / "python"
        bare.parent.mkdir(parents=True)
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: this interpreter, without any package
        bare.chmod(0o755)
        for verb in sorted((CHECKOUT / "tools").iterdir()):
            if verb.is_symlink():
                done = call(verb, "--help", cwd=tmp_path, TRAINYARD_PYTHON=str(bare))
                assert (done.returncode, done.stdout) == (2, "")
                assert "lacks typer, pydantic, numpy, yaml, rich: run `make install` in " in done.stderr
                assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("exit 3", "is older than Python 3.11"),
            ("exit 1", "does not start"),
            (None, "does not start"),
        ],
    )
    def test_a_python_that_is_none_or_old(self, yard: Path, tmp_path: Path, text: str | None, told: str) -> None:
        python = tmp_path / "python"
        if text:
            python.write_text(f"#!/bin/sh\n{text}\n")
            python.chmod(0o755)
        done = call(yard / "tools" / "say-word", cwd=tmp_path, TRAINYARD_PYTHON=str(python))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert f"error: {python} {told}: run `make install` in {yard}" in done.stderr


def test_a_named_environment_that_is_not_there_is_not_passed_over(yard: Path, tmp_path: Path) -> None:
    environment_with_python(yard / ".venv")
    nowhere = {"TRAINYARD_PYTHON": "", "TRAINYARD_VENV": str(tmp_path / "nowhere")}
    done = call(yard / "tools" / "say-word", cwd=tmp_path, **nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"TRAINYARD_VENV has no bin/python: {tmp_path / 'nowhere'}" in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252:strict"])
def test_text_that_the_terminal_lacks_is_printed_as_an_escape(yard: Path, tmp_path: Path, encoding: str) -> None:
    verb = yard / "tools" / "say-word"
    done = call(verb, "--word", "\u6f22\u5b57", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "\\u6f22\\u5b57" in done.stdout


def test_a_byte_that_is_no_text_is_printed(yard: Path, tmp_path: Path) -> None:
    """A file name that is not UTF-8, on a terminal that is."""
    verb = yard / "tools" / "say-word"
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([verb, "--word", b"\xff"], env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, b"\\udcff")
