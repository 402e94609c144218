"""Whether a change of the code leaves what commands print as it was: `python -m tests.same_commands REVISION`.

A git revision's code trains three small runs. Then every verb is called over a copy of them, with the revision's code
and with this checkout's: what it prints, its exit code and the files it leaves are compared, but for times. Differences
are shown as a diff; whether each is meant is for people to say. Not a test of the suite: it needs the other revision's
code. About five minutes on two cores.
"""

import difflib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
RUNS = {
    "tr900a-28K-small": (1, ["--checkpoint.every_steps=2", "--checkpoint.weights_every_steps=3"]),
    "tr900b-28K-tp": (2, ["--parallel.tensor=2", "--training.steps=6", "--checkpoint.every_steps=3",
                          "--evaluation.every_steps=3"]),
    "tr900c-28K-alibi": (1, ["--model.position_embedding=alibi", "--training.precision=bf16"]),
}  # fmt: skip
HELP = {
    "checkpoint": "list show diff verify pin unpin save bench", "dataset": "info verify adopt", "demo": "",
    "export-universal": "", "generate": "", "import-checkpoint": "", "preprocess": "", "reshape": "",
    "inventory": "list find show where verify locations render rebuild bench invalidate revalidate gold note gc adopt",
    "runs": "list show diff new lint fields", "stdlib-corpus": "", "sync-to-hub": "push pull auth bench",
    "tflops": "estimate bench tune draw render", "tokenizer": "train show",
}  # fmt: skip
COMMANDS = """
inventory list --json
inventory list
inventory find --json
inventory find tr900a-28K-small --json
inventory find --metric validation_loss<9 --json
inventory show tr900a-28K-small --json
inventory show tr900a-28K-small@4 --json
inventory show tr900a-28K-small@4
inventory verify tr900c-28K-alibi --json
inventory where tr900a-28K-small --json
inventory locations --json
inventory gold tr900a-28K-small@8 --metric mmlu=0.25 --because chosen
inventory note tr900a-28K-small noted --tag x
inventory show tr900a-28K-small --json
inventory find --metric mmlu>0.2 --json
inventory invalidate tr900b-28K-tp@3 --because wrong
inventory show tr900b-28K-tp@6 --json
inventory revalidate tr900b-28K-tp@3
inventory gc --json
sync-to-hub push tr900a-28K-small --to file://{folder}/copies --json
sync-to-hub push tr900a-28K-small --to file://{folder}/copies --json
sync-to-hub push tr900b-28K-tp --to file://{folder}/copies --steps 6
inventory where tr900a-28K-small --json
inventory locations --json
inventory gc --json
sync-to-hub pull tr900a-28K-small --from file://{folder}/copies --into {folder}/pulled --json
sync-to-hub pull tr900a-28K-small --from file://{folder}/copies --steps 4 --weights-only --into {folder}/weights
sync-to-hub auth file:///tmp/x
checkpoint list tr900a-28K-small --json
checkpoint list tr900a-28K-small
checkpoint show tr900a-28K-small@4 --json
checkpoint show tr900a-28K-small@4
checkpoint diff tr900a-28K-small@4 tr900a-28K-small@8
checkpoint verify tr900a-28K-small@4
checkpoint pin tr900a-28K-small@4 --because why
checkpoint list tr900a-28K-small
checkpoint unpin tr900a-28K-small@4
dataset info {folder}/data/text
dataset verify {folder}/data/text
runs list --json
runs list
runs show tr11-176B-ml --json
runs show tr11-176B-ml
runs show tr3m-1B3-pile --json
runs diff tr11-176B-ml tr1-13B-base
runs lint
runs fields
tflops estimate tr11-176B-ml --json
tflops estimate tr3m-1B3-pile --gpu H100 --nodes 8 --json
tflops render --check
inventory render --check
export-universal tr900a-28K-small@8 --output {folder}/universal
reshape tr900a-28K-small@8 --output {folder}/reshaped --files 2
generate tr900a-28K-small@8 --prompt abc --tokens 5
"""
CHANGING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?"
    r"|[\d.]+ (s|[kMG]?B/s)\b|\b[0-9a-f]{12,64}\b|\d+ seconds? ago"
)
"""times, speeds, and the ids and hashes of what has a time in it"""


def commands(folder: Path) -> Iterator[list[str]]:
    """Each verb's arguments, the verb first."""
    for verb, names in HELP.items():
        yield [verb, "--help"]
        yield from ([verb, name, "--help"] for name in names.split())
    for line in COMMANDS.strip().splitlines():
        yield line.format(folder=folder).split()


def call_all(checkout: Path, seed: Path, folder: Path) -> dict[str, str]:
    """What every command says over a copy of the seed, by command; and the names of all files in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seed, folder)
    places = {
        "TRAINYARD_RUNS": f"{folder}/runs",
        "TRAINYARD_DATA": f"{folder}/data",
        "TRAINYARD_CACHE": f"{folder}/cache",
    }
    environment = {**os.environ, **places, "COLUMNS": "100"}
    said: dict[str, str] = {}
    for number, (verb, *arguments) in enumerate(commands(folder)):
        done = subprocess.run(
            [checkout / "tools" / verb, *arguments], cwd=checkout, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        name = f"{number:03d} tools/{' '.join([verb, *arguments])}"
        said[name] = f"{CHANGING.sub('*', done.stdout)}\nexit code {done.returncode}\n"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts)
    tensors = {
        path: hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in files if path.suffix == ".safetensors"
    }
    said["files"] = "".join(f"{CHANGING.sub('*', str(path))} {tensors.get(path, '')}\n" for path in files)
    return said


def train_runs(folder: Path) -> None:
    """The three runs and their data, with the code of the checkout that this module lies in."""
    from tests.small_training import make_small_data, train_launch

    try:
        from megatron_patches.run.run_directory import start_launch
    except ImportError:  # 32d1be0 and older
        from megatron_patches.run_directory import start_launch  # type: ignore[import-not-found, no-redef]
    from tests.ranks import run_on_ranks

    os.environ |= {"TRAINYARD_RUNS": str(folder / "runs"), "TRAINYARD_DATA": str(folder / "data")}
    data = make_small_data(folder / "data")
    for name, (ranks, overrides) in RUNS.items():
        launch = start_launch(data.run(folder / "family", overrides, name))
        run_on_ranks(train_launch, ranks, str(launch.directory))


def main(revision: str) -> int:
    """Compare this checkout with a revision; 1 where anything differs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        other = folder / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", other, revision], cwd=CHECKOUT, check=True)
        try:
            shutil.copy(__file__, other / "tests" / Path(__file__).name)
            environment = {**os.environ, "PYTHONPATH": str(other)}
            command = [sys.executable, "-m", "tests.same_commands", "--train", folder / "seed"]
            subprocess.run(command, cwd=other, env=environment, check=True, stdout=subprocess.DEVNULL)
            before, now = (call_all(checkout, folder / "seed", folder / "work") for checkout in (other, CHECKOUT))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=CHECKOUT, check=True)
    different = [name for name in before if before[name] != now[name]]
    for name in different:
        print("".join(difflib.unified_diff(
            before[name].splitlines(True), now[name].splitlines(True), f"{revision}: {name}", "now", n=1
        )))  # fmt: skip
    print(f"{len(before) - len(different)} of {len(before)} commands say the same")
    return 1 if different else 0


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        train_runs(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1]))
