"""Where logs of jobs go: to logs/ of the checkout, which git has and whose files it ignores."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slurm.job import ARRAY_LOG, JOB_LOG
from tests.slurm.checkout import CHECKOUT
from tests.slurm.cluster import Cluster

SCRIPTS = sorted([*CHECKOUT.glob("train/*.slurm"), *CHECKOUT.glob("train/*/*.slurm"), *CHECKOUT.glob("slurm/*.slurm")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_says_so(script: Path) -> None:
    text = script.read_text()
    log = ARRAY_LOG if "#SBATCH --array=" in text else JOB_LOG
    assert re.findall(r"^#SBATCH --output=(.*)$", text, re.M) == [log]


def test_git_has_the_folder_and_ignores_what_is_in_it() -> None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        settings = ["-c", f"safe.directory={CHECKOUT}"]
        return subprocess.run(["git", *settings, *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert git("ls-files", "logs").stdout.split() == ["logs/.gitignore"]
    assert git("check-ignore", "logs/tr0a-4M-stdlib-17.log").returncode == 0


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A checkout's logs/ as git has it, and two scripts that say hello."""
    (tmp_path / "yard" / "logs").mkdir(parents=True)
    shutil.copy(CHECKOUT / "logs" / ".gitignore", tmp_path / "yard" / "logs")
    for name, log in {"one": JOB_LOG, "many": ARRAY_LOG}.items():
        text = f"#!/bin/bash\n#SBATCH --job-name={name} --output={log}\necho hello\n"
        (tmp_path / "yard" / f"{name}.slurm").write_text(text)
    return tmp_path / "yard"


@pytest.mark.slurm
def test_on_a_cluster(cluster: Cluster, yard: Path) -> None:
    one = cluster.sbatch("one.slurm", cwd=yard)
    assert cluster.wait(one) == ("COMPLETED", 0)
    many = cluster.sbatch("many.slurm", cwd=yard, options=["--array=3-4"])
    cluster.wait(many)
    cluster.run("sbatch", "--wait", f"--dependency=afterany:{many}", "--output=/dev/null", "one.slurm", cwd=yard)
    expected = {f"one-{one}.log", f"many-{many}_3.log", f"many-{many}_4.log"}
    assert {path.name for path in (yard / "logs").glob("*.log")} == expected
    assert all(path.read_text() == "hello\n" for path in (yard / "logs").glob("*.log"))
    assert sorted(path.name for path in yard.iterdir()) == ["logs", "many.slurm", "one.slurm"]


@pytest.mark.slurm
def test_elsewhere_slurm_fails_the_job_unless_a_log_is_named(cluster: Cluster, yard: Path, tmp_path: Path) -> None:
    """What slurm/README.md says of it: SLURM makes no folder."""
    lost = cluster.sbatch(yard / "one.slurm", cwd=tmp_path)
    assert cluster.wait(lost)[0] == "FAILED"
    assert cluster.describe(lost)["ExitCode"] == "0:53"
    named = cluster.sbatch(yard / "one.slurm", cwd=tmp_path, env={"SBATCH_OUTPUT": f"{yard}/logs/%x-%j.log"})
    assert cluster.wait(named) == ("COMPLETED", 0)
    assert (yard / "logs" / f"one-{named}.log").exists()
