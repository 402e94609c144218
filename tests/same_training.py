"""Whether a change of the code leaves training as it was, to the last bit: `python -m tests.same_training REVISION`.

Trains some 30 small runs with the code of a git revision and with this checkout's, and compares losses, gradient
norms, validation losses and every file of the final checkpoint. Then this checkout continues the revision's runs from
the checkpoint before the last one, which must end alike. Each side trains by its own copy of this module. Not a test of
the suite: it needs the other revision's code. About six minutes on two cores.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
STEPS = 6
KEPT = 3
"""step of the checkpoint that the other code continues from"""

LLAMA = [
    "--model.position_embedding=rotary", "--model.norm=rmsnorm", "--model.norm_bias=false", "--model.activation=swiglu",
    "--model.key_value_heads=2", "--model.tied_head=false", "--model.attention_bias=false", "--model.mlp_bias=false",
]  # fmt: skip
DROPOUT = ["--model.hidden_dropout=0.1", "--model.attention_dropout=0.1"]
BF16 = ["--training.precision=bf16"]
TP2 = ["--parallel.tensor=2"]
PP2 = ["--parallel.pipeline=2"]
ADAFACTOR = "--optimizer={name: adafactor, learning_rate: 1e-2, gradient_clip: 0.05}"
MUON = "--optimizer={name: muon, learning_rate: 1e-2, weight_decay: 0.1, rest: {learning_rate: 1e-2}}"
SGD = "--optimizer={name: sgd, learning_rate: 1.0, momentum: 0.9, gradient_clip: 0.05}"

RUNS: dict[str, tuple[int, list[str]]] = {
    "learned": (1, []),
    "llama bf16": (1, [*LLAMA, *BF16]),
    "bloom dropout TP2": (2, [*TP2, *DROPOUT, "--model.position_embedding=alibi", "--model.embedding_norm=true"]),
    "no positions, post-norm, reglu": (
        1, ["--model.position_embedding=none", "--model.norm_placement=post", "--model.activation=reglu"]
    ),
    "prefix, resets, TP2 sequence parallel": (
        2, [*TP2, "--parallel.sequence_parallel=true", "--objective={name: prefix_lm, reset_attention: true, "
            "reset_positions: true, loss_after_end_of_document: false}"]
    ),
    "prefix, alibi, reweighted, PP2": (
        2, [*PP2, "--model.position_embedding=alibi", "--objective={name: prefix_lm, reweight_by_position: true}"]
    ),
    "causal resets PP3": (
        3, ["--parallel.pipeline=3", "--objective={reset_attention: true, reset_positions: true}", *DROPOUT]
    ),
    "rotary interleaved, reset positions, TP2 PP2": (
        4, [*TP2, *PP2, "--model.position_embedding={name: rotary, fraction: 0.5, pairs: interleaved}",
            "--objective={reset_positions: true}"]
    ),
    "DP2 ZeRO 0": (2, ["--parallel.zero_stage=0"]),
    "DP2 ZeRO 1 bf16": (2, [*BF16, *LLAMA]),
    "DP2 ZeRO 2 bf16": (2, [*BF16, "--parallel.zero_stage=2"]),
    "DP2 ZeRO 3 bf16": (2, [*BF16, "--parallel.zero_stage=3"]),
    "DP2 ZeRO 3 llama": (2, [*LLAMA, "--parallel.zero_stage=3"]),
    "DP2 overlap": (2, ["--parallel.overlap_reduction=true"]),
    "adafactor TP2": (2, [*TP2, *LLAMA, "--model.tied_head=true", ADAFACTOR]),
    "adafactor PP2, gelu": (2, [*PP2, ADAFACTOR]),
    "muon TP2": (2, [*TP2, *LLAMA, MUON]),
    "muon DP2 ZeRO 1": (2, [MUON]),
    "lion": (1, ["--optimizer={name: lion, learning_rate: 1e-3, weight_decay: 0.1}"]),
    "SGD PP2": (2, [*PP2, SGD, "--schedule.final_learning_rate=0.1"]),
    "selective recomputation TP2": (2, [*TP2, *DROPOUT, *LLAMA, "--training.recomputation=selective"]),
    "full recomputation PP2": (2, [*PP2, *DROPOUT, "--training.recomputation=full"]),
    "compiled": (1, [*LLAMA, "--training.compile=true"]),
    "compiled TP2 full recomputation": (2, [*TP2, "--training.compile=true", "--training.recomputation=full"]),
    "parallel residual, head norms, soft cap": (
        1, ["--model.parallel_residual=true", "--model.query_key_norm=true", "--model.logit_soft_cap=5.0"]
    ),
    "shared groups TP4 sequence parallel": (
        4, [*LLAMA, "--parallel.tensor=4", "--parallel.sequence_parallel=true", "--model.query_key_norm=true"]
    ),
    "smoothing, z-loss, geglu": (
        1, ["--objective={label_smoothing: 0.1, z_loss: 1e-3}", "--model.activation=geglu", "--model.mlp_bias=false"]
    ),
    "TP2 PP2 DP2": (8, [*TP2, *PP2]),
    "PP3 by parameters, embedding dropout": (
        3, ["--parallel.pipeline=3", "--parallel.pipeline_partition=parameters", "--model.embedding_dropout=0.1"]
    ),
    "float8": (1, [*BF16, "--training.fp8=tensorwise"]),
    "fp16": (1, ["--training.precision=fp16"]),
    "attention math": (1, ["--training.attention_kernel=math", *LLAMA]),
    "ramp in tokens": (
        1, ["--training.batch_ramp={start: 4, increment: 2, samples: 12}", "--training.steps=null",
            "--training.tokens=640"]
    ),
    "frozen and decays": (
        2, [*TP2, "--training.frozen=['layers.0.*', '*.bias']", "--optimizer.weight_decay_by_name={'*.mlp.*': 0.3}"]
    ),
}  # fmt: skip


def overrides(name: str) -> list[str]:
    """The words of a run's command line, the common ones first."""
    common = [f"--training.steps={STEPS}", f"--checkpoint.every_steps={KEPT}", f"--evaluation.every_steps={KEPT}"]
    return [*common, *RUNS[name][1]]


def train_all(folder: Path, runs: Path) -> dict[str, Any]:
    """What each run records and saves; its directory stays under `runs`. An error's last line stands for a result."""
    from megatron_patches.run.run_directory import start_launch
    from tests.ranks import RankFailed, run_on_ranks
    from tests.small_training import SmallData, train_launch

    os.environ["TRAINYARD_RUNS"] = str(runs)
    data, found = SmallData(folder / "data"), {}
    for number, name in enumerate(RUNS):
        config = data.run(folder, overrides(name), f"tr900-{number}-small")
        launched = start_launch(config)
        try:
            run_on_ranks(train_launch, RUNS[name][0], str(launched.directory), timeout=300)
        except RankFailed as error:
            found[name] = {"error": str(error).strip().splitlines()[-1]}
            print(f"{name}: {found[name]['error']}", flush=True)
            continue
        found[name] = result(launched.run)
        print(f"{name}: loss {list(found[name]['steps'].values())[-1][0]}", flush=True)
    return found


def result(run: Any) -> dict[str, Any]:
    """Losses and norms of every step, validation losses, and the hash of every tensor file of the newest checkpoint."""
    from megatron_patches.events.reading import effective, read_events

    events = read_events(run.events)
    steps, validations = effective(events, "step"), effective(events, "validation")
    newest = max(run.checkpoints.glob("step-*"))
    files = json.loads((newest / "manifest.json").read_text())["files"]
    return {
        "steps": {str(each.facts["step"]): [each.facts["loss"], each.facts["grad_norm"]] for each in steps},
        "validations": [each.facts["loss"] for each in validations],
        "checkpoint": newest.name,
        "files": {each["path"]: each["sha256"] for each in files if each["path"].endswith(".safetensors")},
    }


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not the same, a line each."""
    return [
        f"{name}: {key} differs" for name in before for key in before[name] if before[name][key] != now[name].get(key)
    ]


def main(revision: str) -> int:
    """Compare this checkout with a revision; 1 where anything differs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        other = folder / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", other, revision], cwd=CHECKOUT, check=True)
        try:
            if not (other / "tests" / Path(__file__).name).exists():
                raise SystemExit(
                    f"{revision} is older than {Path(__file__).name} (32d1be0 has it): name a later revision"
                )
            before = record(other, folder, "before")
            now = record(CHECKOUT, folder, "now")
            found = differences(before, now)
            shutil.copytree(folder / "before-runs", folder / "continued-runs", symlinks=True)
            for step in (folder / "continued-runs").glob(f"*/checkpoints/step-{STEPS:010d}"):
                shutil.rmtree(step)
            found += [f"continued: {line}" for line in differences(before, record(CHECKOUT, folder, "continued"))]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=CHECKOUT, check=True)
    print("\n".join(found) or f"{len(RUNS)} runs are the same, bit for bit, and {len(RUNS)} continued alike")
    return 1 if found else 0


def record(checkout: Path, folder: Path, title: str) -> dict[str, Any]:
    """The results of a checkout's code, made in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "tests.same_training", "--record", str(folder), title]
    subprocess.run(command, cwd=checkout, env=environment, check=True)
    return json.loads((folder / f"{title}.json").read_text())


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        place, title = Path(sys.argv[2]), sys.argv[3]
        if not (place / "data").exists():
            from tests.small_training import make_small_data

            make_small_data(place / "data")
        (place / f"{title}.json").write_text(json.dumps(train_all(place, place / f"{title}-runs"), indent=1))
    else:
        sys.exit(main(sys.argv[1]))
