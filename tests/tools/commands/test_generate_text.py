"""What `tools/generate` writes: one text, files of them, chats; in pipes and terminals of any encoding."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

GENERATE = CHECKOUT / "tools" / "generate"
PROMPTS = ["abc", "", "a longer one of two lines\nand more", "漢字 \x1b[2J"]


@pytest.fixture(scope="module")
def run(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps on one process; its model writes odd bytes."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        changes = overrides(
            training__steps=3, model__init_std=0.3, model__layers=2, data__sequence_length=64, evaluation="null"
        )
        launch = start_launch(small_data.run(folder, changes))
    run_on_ranks(train_launch, 1, str(launch.directory))
    return RunFolder(launch.run.path).path


def call(arguments: list[str], standard_input: bytes | None = None) -> tuple[int, bytes, bytes]:
    """The verb in this process, as a pipe sees it: exit code, and the bytes of its output and errors."""
    import io

    from tools.command_line import run_app
    from tools.commands.generate.command_line import app

    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.argv = ["generate", *arguments]
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    if standard_input is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(standard_input), encoding)
    try:
        run_app(app, "generate")
    except SystemExit as ended:
        return int(ended.code or 0), sys.stdout.buffer.getvalue(), sys.stderr.buffer.getvalue()  # type: ignore[attr-defined]
    raise AssertionError("a verb ends its process")


def generate(run: Path, *arguments: str, standard_input: bytes | None = None) -> tuple[int, bytes, bytes]:
    return run_on_ranks(call, 1, [str(run), *arguments], standard_input)[0]


def lines_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("\n\n".join(json.dumps({"text": each, "more": 1}) for each in PROMPTS))
    return path


@pytest.fixture(scope="module")
def answers(run: Path, prompts: Path) -> list[dict[str, Any]]:
    code, out, _ = generate(run, "--prompts", str(prompts), "--tokens", "70", "--batch-size", "3", "--top-p", "0.95")
    assert code == 0 and out.isascii()
    return lines_of(out)


def test_lines_come_in_the_order_of_the_prompts(answers: list[dict[str, Any]]) -> None:
    assert [each["prompt"] for each in answers] == PROMPTS
    assert [each["seed"] for each in answers] == [0, 1, 2, 3]
    assert max(each["tokens"] for each in answers) == 70, "none is longer than the window of 64"
    assert {each["ending"] for each in answers} <= {"length", "end"}
    assert any(not each["text"].isascii() for each in answers)


@pytest.mark.parametrize("number", [0, 3])
def test_a_prompt_alone_gives_the_text_that_it_gives_among_others(
    run: Path, answers: list[dict[str, Any]], number: int
) -> None:
    given = ["--prompt", PROMPTS[number], "--tokens", "70", "--top-p", "0.95", "--seed", str(number)]
    code, out, _ = generate(run, *given)
    assert code == 0 and out.decode() == PROMPTS[number] + answers[number]["text"] + "\n"


def test_a_file_holds_what_a_terminal_shows(
    run: Path, prompts: Path, answers: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    given = ["--prompts", str(prompts), "--tokens", "70", "--top-p", "0.95", "--output", str(tmp_path / "out.jsonl")]
    assert generate(run, *given)[:2] == (0, b"")
    content = (tmp_path / "out.jsonl").read_bytes()
    assert lines_of(content) == answers and not content.isascii()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    code, _, error = generate(run, *given)
    assert code == 2 and b"out.jsonl exists" in error


def call_on_a_full_disk(arguments: list[str]) -> tuple[int, bytes, bytes]:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))  # Python ignores the signal, and a write says EFBIG
    return call(arguments)


def test_texts_that_cannot_be_kept_are_printed(
    run: Path, prompts: Path, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    given = ["--prompts", str(prompts), "--tokens", "70", "--top-p", "0.95", "--output"]
    code, out, error = run_on_ranks(call_on_a_full_disk, 1, [str(run), *given, str(tmp_path / "out.jsonl")])[0]
    assert code == 2 and lines_of(out) == answers
    assert b"standard output" in error and error.count(b"error: ") == 1 and list(tmp_path.iterdir()) == []
    code, out, error = generate(run, *given, str(tmp_path / "none" / "out.jsonl"))
    assert (code, out) == (2, b"") and b"none is no folder" in error


@pytest.mark.slow
def test_a_process_that_is_killed_is_named(run: Path) -> None:
    """A reply without an end in sight, of two processes; the kernel kills one of them."""
    given = [GENERATE, run, "--chat", "--tokens", "1000000", "--stop", "\ue000", "--tensor-parallel", "2"]
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        given, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"hello\n" * 1000)
        process.stdin.flush()
        process.stdout.read(1)
        (follower,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(follower), signal.SIGKILL)
        process.stdout.read()
        error = process.stderr.read().decode()
        assert process.wait() == 1
    assert error == (
        "error: process 1 of those that hold the model was killed (out of memory?); run the command again\n"
    )


def test_stages_write_what_one_process_writes(run: Path, prompts: Path, answers: list[dict[str, Any]]) -> None:
    """The executable with two processes; none is left behind."""
    given = [GENERATE, run, "--prompts", prompts, "--tokens", "70", "--top-p", "0.95", "--pipeline-parallel", "2"]
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(given, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stdout) == answers


def test_a_stop_string_and_an_encoding_that_lacks_characters(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--prompt", "漢字", "--tokens", "40", "--temperature", "0"]
    _, out, _ = generate(run, *given)
    whole = out.decode()[len("漢字") : -1]
    stop = whole[3:5]
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, out, _ = generate(run, *given, "--stop", "not in it", "--stop", stop)
    shown = "漢字" + whole[: whole.index(stop)] + "\n"
    assert (code, out.decode("ascii")) == (0, shown.encode("ascii", "backslashreplace").decode())


def test_a_chat_in_a_pipe(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that are no text are refused and end nothing; every other one has a reply."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    questions = "What is 漢字?\n\n".encode() + b"\xff\n" + b"again " * 40 + b"\nlast\n"
    code, out, error = generate(run, "--chat", "--tokens", "9", "--temperature", "0", standard_input=questions)
    assert code == 0 and out.isascii()
    assert out.count(b"\n") >= 3
    assert error.count(b"not UTF-8 text") == 1
    again = generate(run, "--chat", "--tokens", "9", "--temperature", "0", standard_input=questions)
    assert again[1] == out


@pytest.mark.slow
def test_a_chat_in_a_terminal(run: Path) -> None:
    """Ctrl-C ends a reply of which no end is in sight, Ctrl-D the chat; no control character comes through."""
    command = [str(GENERATE), str(run), "--chat", "--tokens", "1000000", "--temperature", "1.5"]
    environment = {**os.environ, "TRAINYARD_PYTHON": sys.executable, "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(command[0], command, environment)
    try:
        seen = read_until(terminal, b"> ")
        for number in range(20):  # the model may end a reply before it is as long
            os.write(terminal, f"hello 漢字 {number}\n".encode())
            seen += (reply := read_until(terminal, b"\n> ", at_most=200))
            if not reply.endswith(b"\n> "):
                break
        os.write(terminal, b"\x03")
        seen += read_until(terminal, b"\n> ")
        # one that comes between the prompt and the wait for a line is noticed with the next key only
        while not select.select([terminal], [], [], 2.0)[0]:
            os.write(terminal, b"\x03")
        seen += read_until(terminal, b"Ctrl-D ends the chat.\r\n> ")
        os.write(terminal, b"\x04")
        read_until(terminal, None)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        child = 0
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)
    controls = {byte for byte in seen if byte < 0x20} - set(b"\r\n\t")
    assert not controls, seen


def read_until(terminal: int, ending: bytes | None, at_most: int = 1 << 20, seconds: float = 120) -> bytes:
    """What a terminal shows up to these last bytes, or until its process ends; no more than so many bytes, roughly."""
    seen, deadline = b"", time.monotonic() + seconds
    while ending is None or (not seen.endswith(ending) and len(seen) <= at_most):
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # its other end is closed
            assert ending is None, seen
            break
    return seen
