"""`slurm/launch` on a real SLURM cluster of two nodes, each with its own network."""

from pathlib import Path

import pytest

from tests.slurm.checkout import RUN, SmallCheckout
from tests.slurm.cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

# so that the environment is the small checkout's own
ENVIRONMENT = {"TRAINYARD_VENV": ""}


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


class TestWhereItWasSubmitted:
    @pytest.mark.parametrize("folder", [".", "train/tr0-demo"])
    def test_in_the_checkout(self, cluster: Cluster, checkout: SmallCheckout, folder: str) -> None:
        job = cluster.sbatch(checkout.script, "--why", "a 'quoted' $word", cwd=checkout.root / folder, env=ENVIRONMENT)
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
        assert checkout.planned() == [RUN, "--why", "a 'quoted' $word", "--nodes", "2"]

    def test_elsewhere_is_an_error_with_the_remedy(
        self, cluster: Cluster, checkout: SmallCheckout, tmp_path: Path
    ) -> None:
        job = cluster.sbatch(checkout.script, cwd=tmp_path, env=ENVIRONMENT)
        assert cluster.wait(job) == ("FAILED", 2)
        assert f"no slurm/launch at or above {tmp_path};" in cluster.log(job)
        assert "cd into the checkout before sbatch, or export TRAINYARD_HOME=CHECKOUT" in cluster.log(job)

    def test_elsewhere_with_a_home(self, cluster: Cluster, checkout: SmallCheckout, tmp_path: Path) -> None:
        home = {"TRAINYARD_HOME": str(checkout.script.parent)}
        job = cluster.sbatch(checkout.script, cwd=tmp_path, env={**ENVIRONMENT, **home})
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)

    def test_in_an_salloc_shell(self, cluster: Cluster, checkout: SmallCheckout, tmp_path: Path) -> None:
        cluster.run("salloc", "--nodes=2", "bash", str(checkout.script), cwd=tmp_path, env=ENVIRONMENT)
        assert checkout.planned() == [RUN, "--nodes", "2"]
        assert [checkout.node(rank)["host"] for rank in (0, 1)] == ["node1", "node2"]

    def test_without_its_environment(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        """--export=NONE also tells srun to export nothing."""
        job = cluster.sbatch(checkout.script, cwd=checkout.root, options=["--export=NONE"])
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
        assert checkout.node(1)["environment"]["PYTHONPATH"].split(":")[0] == str(checkout.root)


class TestNodes:
    def test_one_task_a_node_and_one_meeting_place(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        options = ["--ntasks-per-node=2"]  # a mistake that changes nothing
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env=ENVIRONMENT, options=options)
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
        assert sorted(path.name for path in checkout.launch_directory.glob("node-*")) == ["node-0.json", "node-1.json"]
        for rank in (0, 1):
            node = checkout.node(rank)
            assert node["host"] == f"node{rank + 1}"
            assert node["folder"] == str(checkout.root)
            assert node["arguments"][0] == str(checkout.launch_directory)
            settings = ("--nodes", "--node-rank", "--processes", "--host", "--port")
            found = [option(node["arguments"], word) for word in settings]
            assert found == ["2", str(rank), "3", "node1", str(10000 + job % 20000)]

    def test_a_task_has_its_nodes_gpus_and_cpus(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        options = ["--gres=gpu:4", "--cpus-per-task=6"]
        environment = {**ENVIRONMENT, "SRUN_CPUS_PER_TASK": "1"}
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env=environment, options=options)
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
        assert checkout.planned() == [RUN, "--nodes", "2", "--gpus-per-node", "4"]
        for rank in (0, 1):
            seen = checkout.node(rank)["environment"]
            assert (seen["CUDA_VISIBLE_DEVICES"], seen["SLURM_CPUS_ON_NODE"]) == ("0,1,2,3", "6")

    def test_a_site_speaks_to_sbatch_and_to_every_node(
        self, cluster: Cluster, checkout: SmallCheckout, tmp_path: Path
    ) -> None:
        checkout.add_environment(tmp_path / "venv", "site")
        checkout.add_site(
            "here",
            "export TRAINYARD_SITE=here SBATCH_GRES=gpu:2 SBATCH_CPUS_PER_GPU=5\n"
            'module() { export LOADED="$* on $(hostname)"; }\n'
            f"TRAINYARD_MODULES=cuda TRAINYARD_VENV={tmp_path}/venv\n",
        )
        script = checkout.script.read_text().replace("#SBATCH", "#SBATCH --gres=gpu:8\n#SBATCH", 1)
        checkout.script.write_text(script)
        submit = f"source slurm/sites/here.sh; sbatch --parsable {checkout.script}"
        job = int(cluster.run("bash", "-c", submit, cwd=checkout.root).stdout)
        assert cluster.wait(job) == ("COMPLETED", 0), cluster.log(job)
        assert option(checkout.planned(), "--gpus-per-node") == "2"
        for rank in (0, 1):
            seen = checkout.node(rank)["environment"]
            assert seen["LOADED"] == f"load cuda on node{rank + 1}"
            assert (seen["STAND_IN_PYTHON"], seen["SLURM_CPUS_ON_NODE"]) == ("site", "10")


class TestEnd:
    @pytest.mark.parametrize(
        ("environment", "code"),
        [
            ({"STAND_IN_PLAN_CODE": "2"}, 2),
            # node 2 ends with 143 when srun ends it, and srun itself reports the higher code
            ({"STAND_IN": "fail"}, 7),
        ],
    )
    def test_exit_codes_are_passed_through(
        self, cluster: Cluster, checkout: SmallCheckout, environment: dict[str, str], code: int
    ) -> None:
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env={**ENVIRONMENT, **environment})
        assert cluster.wait(job) == ("FAILED", code), cluster.log(job)

    def test_the_warning_before_the_time_limit_stops_the_run(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env={**ENVIRONMENT, "STAND_IN": "stop"})
        for rank in (0, 1):
            cluster.wait_for_log(job, f"node {rank} listens")
        cluster.cancel(job, "--batch", "--signal=USR1")  # as `#SBATCH --signal=B:USR1@600` does
        assert cluster.wait(job) == ("FAILED", 75), cluster.log(job)
        for rank in (0, 1):
            assert f"node {rank} was asked to stop" in cluster.log(job)

    def test_a_warning_before_anyone_listens_is_not_lost(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        environment = {**ENVIRONMENT, "STAND_IN": "stop", "STAND_IN_PLAN_SECONDS": "1"}
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env=environment)
        cluster.wait_for_log(job, "planning")
        cluster.cancel(job, "--batch", "--signal=USR1")
        assert cluster.wait(job) == ("FAILED", 75), cluster.log(job)

    def test_scancel_leaves_time_to_stop(self, cluster: Cluster, checkout: SmallCheckout) -> None:
        job = cluster.sbatch(checkout.script, cwd=checkout.root, env={**ENVIRONMENT, "STAND_IN": "stop"})
        for rank in (0, 1):
            cluster.wait_for_log(job, f"node {rank} listens")
        cluster.cancel(job)
        assert cluster.wait(job)[0] == "CANCELLED"
        wait_until(lambda: (checkout.launch_directory / "stopped").exists(), 10, "the nodes' end")
        for rank in (0, 1):
            assert f"node {rank} was asked to stop" in cluster.log(job)
