"""Every rule of `tools/runs lint` is broken once, alone, and found."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from tools.commands.runs.lint import lint_all, lint_runs
from tools.run_files.slurm_script import script_problems

FAMILY = "train/tr20-125M-domain-tokens"
RUN = f"{FAMILY}/tr20a-125M-baseline"

Damage = Callable[[Path], None]


def replace(file: str, old: str, new: str) -> Damage:
    def damage(checkout: Path) -> None:
        text = (checkout / file).read_text()
        assert text.count(old) == 1, f"{old!r} is not once in {file}"
        (checkout / file).write_text(text.replace(old, new))

    return damage


def remove(file: str) -> Damage:
    return lambda checkout: (checkout / file).unlink()


def write(file: str, text: str) -> Damage:
    def damage(checkout: Path) -> None:
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text(text)

    return damage


def insert(line: str) -> Damage:
    return replace(f"{RUN}.slurm", "#SBATCH --requeue\n", f"#SBATCH --requeue\n{line}\n")


def move_run(checkout: Path) -> None:
    """The run's number and its folder's no longer agree; its script follows, so that only this is wrong."""
    for suffix in (".yaml", ".slurm"):
        shutil.move(checkout / f"{RUN}{suffix}", checkout / "train" / "tr0-stdlib-gpt")
    script = checkout / "train" / "tr0-stdlib-gpt" / "tr20a-125M-baseline.slurm"
    script.write_text(script.read_text().replace("tr20-125M-domain-tokens", "tr0-stdlib-gpt"))


def rename_run(checkout: Path) -> None:
    for suffix in (".yaml", ".slurm"):
        path = checkout / f"{RUN}{suffix}"
        path.with_name(f"baseline{suffix}").write_text(path.read_text().replace("tr20a-125M-baseline", "baseline"))
        path.unlink()


DEFECTS: dict[str, tuple[Damage, str]] = {
    "name": (rename_run, "baseline.yaml: the name is not formed as tr<N>[letter]-<size>-<description>"),
    "folder of another number": (move_run, "the run's number is 20, its folder is tr0-stdlib-gpt"),
    "family name": (write("train/domain/README.md", "word " * 60), "train/domain: the folder's name is not formed as"),
    "two families of a number": (
        write("train/tr20-other/README.md", "word " * 60),
        "train: the number 20 has 2 families: tr20-125M-domain-tokens, tr20-other",
    ),
    "does not load": (replace(f"{RUN}.yaml", "19073", "many"), 'baseline.yaml: does not load: training.steps: "many"'),
    "size": (replace(f"{RUN}.yaml", "layers: 12", "layers: 11"), "the name says 125M, the model has 117,422,592"),
    "no script": (remove(f"{RUN}.slurm"), "has no tr20a-125M-baseline.slurm beside it"),
    "no yaml": (write(f"{FAMILY}/tr20b-125M-x.slurm", ""), "tr20b-125M-x.slurm: has no tr20b-125M-x.yaml beside it"),
    "job name": (
        replace(f"{RUN}.slurm", "--job-name=tr20a-125M-baseline", "--job-name=tr20a"),
        "job-name is tr20a, the run is tr20a-125M-baseline",
    ),
    "no nodes": (replace(f"{RUN}.slurm", "#SBATCH --nodes=1\n", ""), "has no line #SBATCH --nodes=..."),
    "tasks": (replace(f"{RUN}.slurm", "per-node=1", "per-node=4"), "--ntasks-per-node is 4; write"),
    "no time": (replace(f"{RUN}.slurm", "#SBATCH --time=20:00:00\n", ""), "has no line #SBATCH --time=..."),
    "signal": (replace(f"{RUN}.slurm", "B:USR1@600", "B:USR1@60"), "--signal is B:USR1@60; write"),
    "no requeue": (replace(f"{RUN}.slurm", "#SBATCH --requeue\n", ""), "has no line #SBATCH --requeue"),
    "truncating log": (replace(f"{RUN}.slurm", "=append", "=truncate"), "--open-mode is truncate"),
    "log name": (replace(f"{RUN}.slurm", "%x-%j.log", "log.txt"), "--output is log.txt"),
    "account": (insert("#SBATCH --account=six@gpu"), "--account belongs to a cluster"),
    "account, short": (insert("#SBATCH -A six"), "--account belongs to a cluster"),
    "partition": (insert("#SBATCH --partition gpu_p1"), "--partition belongs to a cluster"),
    "gpus": (insert("#SBATCH --gres=gpu:4   # per node"), "--gres belongs to a cluster"),
    "path": (insert("# data: /scratch/me/corpus"), "names the machine's path /scratch/me/corpus"),
    "home": (insert("# data: ~/corpus"), "names the machine's path ~/corpus"),
    "user": (insert("# data: $SCRATCH/corpus"), "names the machine's path $SCRATCH"),
    "code": (insert("module load cuda"), "'module load cuda' is code"),
    "another run": (replace(f"{RUN}.slurm", f"run={RUN}.yaml", "run=train/x.yaml"), f"needs one line run={RUN}.yaml"),
    "ending": (replace(f"{RUN}.slurm", "exit 2\n", "exit 1\n"), "does not end as slurm/script_ending.sh"),
    "no readme": (remove(f"{FAMILY}/README.md"), f"{FAMILY}: has no README.md"),
    "stub": (write(f"{FAMILY}/README.md", "# Domain tokens\nA baseline.\n"), "README.md has 5 words, a stub"),
    "unwritten": (write(f"{FAMILY}/README.md", "word " * 60 + "(to be written)"), "still has a part (to be written)"),
    "template": (
        replace("train/arch-and-scaling-template.slurm", "--requeue", "--no-requeue"),
        "template.slurm: has no",
    ),
    "stale table": (replace("train/README.md", "| 10B |", "| 15B |"), "the table of runs is stale"),
    "stale page": (replace("checkpoints.md", "ready (never launched)", "finished"), "checkpoints.md: stale"),
    "stale states": (replace("train/README.md", "ready (never launched)", "finished"), "train/README.md: stale"),
    "no table": (write("train/README.md", "# The runs\n"), "the table of runs has no place"),
}


def test_the_checkout_is_in_order(checkout: Path) -> None:
    assert lint_all(checkout) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_found(checkout: Path, defect: str) -> None:
    damage, message = DEFECTS[defect]
    damage(checkout)
    problems = lint_all(checkout)
    assert any(message in problem for problem in problems), problems
    # a defect that changes what the table says is also seen there, and nowhere else
    others = [problem for problem in problems if message not in problem and "the table of runs is stale" not in problem]
    assert others == []


def test_one_run_alone(checkout: Path) -> None:
    replace(f"{RUN}.yaml", "layers: 12", "layers: 11")(checkout)
    insert("#SBATCH --account=six")(checkout)
    assert len(lint_runs([checkout / f"{RUN}.yaml"], checkout)) == 2
    assert lint_runs([checkout / "train" / "tr0-stdlib-gpt" / "tr0a-4M-stdlib.yaml"], checkout) == []


def test_a_run_outside_train(checkout: Path) -> None:
    with pytest.raises(TrainyardError, match="is not in a folder of"):
        lint_runs([checkout / "elsewhere" / "tr0a-4M-stdlib.yaml"], checkout)


def test_options_in_one_line_or_spelled_short() -> None:
    text = (
        "#!/bin/bash\n#SBATCH -J x -N 2 -t 1:00:00 --ntasks-per-node 1 --requeue --signal=B:USR1@600\n"
        "#SBATCH --open-mode=append -o %x-%j.log # comment\nrun=a.yaml\nend\n"
    )
    assert list(script_problems(text, "end\n", "x", "a.yaml")) == []


def test_two_run_lines_are_refused(checkout: Path) -> None:
    insert(f"run={RUN}.yaml")(checkout)
    assert any("needs one line run=" in problem for problem in lint_all(checkout))
