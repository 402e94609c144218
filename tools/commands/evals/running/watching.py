"""Looks at a run's checkpoints: one, or one after the other until the run is finished."""

import time

from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.evaluations.states import State
from megatron_patches.ending import end_by_term
from tools.commands.evals.running.plan import Plan
from tools.commands.evals.running.this_machine import evaluate
from tools.run_views.state import derive_state, read_queue
from tools.terminal import remark, tell

CONTINUED = 75
"""exit code: the run goes on, another look is to follow"""


def look_once(plan: Plan, come_back: bool) -> int:
    """One look; the exit code: 1 where something failed, 75 where a script is to come back.

    Raises:
        TrainyardError: as `Plan.look` does.
    """
    end_by_term()
    over = _is_finished(plan) if come_back else True  # before the look: what is saved between both is seen
    failed = evaluate(plan, plan.look())
    _tell_failed(plan, failed)
    if failed or (plan.failed_before and not come_back):
        return 1
    return 0 if over else CONTINUED


def watch(plan: Plan, seconds: int) -> int:
    """Looks again and again, until the run is finished and evaluated; the exit code: 1 where something failed.

    Raises:
        TrainyardError: as `Plan.look` does.
    """
    end_by_term()
    failed: list[State] = []
    waits = False
    while True:
        over = _is_finished(plan)
        failed += evaluate(plan, plan.look())
        plan.not_again()
        if over:
            break
        if not waits:
            waits = True
            remark(f"waiting for checkpoints of {plan.run.name}: a look every {seconds} s, Ctrl-C ends it")
        time.sleep(seconds)
    tell(f"{plan.run.name} is finished, and evaluated")
    _tell_failed(plan, failed)
    return 1 if failed or plan.failed_before else 0


def _is_finished(plan: Plan) -> bool:
    return derive_state(plan.run.path, Standing(), read_queue()).word == "finished"


def _tell_failed(plan: Plan, failed: list[State]) -> None:
    for state in failed:
        remark(f"failed: {plan.run.name}@{state.step} {state.label}: {state.message}", layout=True)
