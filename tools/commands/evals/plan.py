"""`tools/evals plan`: the smallest difference that an evaluation could show, before it is paid for."""

from typing import Annotated

import typer


def plan_command(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="RUN, RUN@STEP or RUN@best: take numbers from the results that it has already."
        ),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, help="Number of items of the task, in place of a run. Example: 1319 (GSM8K)")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL[,LABEL...]", help="Plan only these results of the run. Example: hellaswag,mmlu.5-shot"
        ),
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="Tell how many items detect this difference of accuracies. Example: 0.02"),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help=r"Accuracy of the two models \[default: the run's, else 0.5]."),
    ] = None,
    discordant: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            max=1,
            help="Share of items on which one of the two models alone is right "
            r"\[default: as between neighbouring steps of the run, else what accuracies allow]. Example: 0.1",
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(min=1, help="Number of clusters of the items of --examples, such as subjects. Example: 57"),
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Correlation of the differences of two items of one cluster, from 0 to 1 "
            r"\[default: as between neighbouring steps of the run, else 0.02].",
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1, help=r"Number of tasks that will be compared together \[default: those of the run, else 1]."
        ),
    ] = None,
    power: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Chance of detecting a difference that is there.")
    ] = 0.8,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Significance level, two-sided: the chance of reporting a difference where there is none.",
        ),
    ] = 0.05,
    invalid: Annotated[bool, typer.Option("--invalid", help="Accept an evaluation that is marked invalid.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Tell the smallest difference of two accuracies that an evaluation could detect, and what a --limit would cost.

    Example: tools/evals plan --examples 1319 --accuracy 0.3 --at-once 4

    Example: tools/evals plan tr3m-1B3-pile@90000 --tasks hellaswag --difference 0.005
    """
    from megatron_patches.errors import Refused
    from megatron_patches.evaluation.statistics.power import Demands
    from megatron_patches.evaluation.tasks.extra import refuse_without
    from tools.commands.evals.comparing.plan_tables import as_json, legend, needed_table, table
    from tools.commands.evals.comparing.planned_tasks import Known, task_of_numbers, tasks_of_results
    from tools.evaluation_views.choice import words_of
    from tools.evaluation_views.evaluated_step import find_evaluated_step
    from tools.tables import print_table
    from tools.terminal import remark, tell, tell_filled, tell_json

    if (run is None) == (examples is None):
        raise Refused("give a run that was evaluated, or --examples N: one of the two")
    refuse_without("plans", scipy="scipy")
    known = Known(accuracy, discordant, correlation)
    if run is not None:
        if clusters is not None:
            raise Refused("--clusters is for --examples; a run's items have their own")
        labels = words_of(tasks or [])
        planned, left_out = tasks_of_results(find_evaluated_step(run, invalid), labels, known)
        if left_out:
            remark(f"left out, as items are not kept or not right or wrong: {', '.join(left_out)}")
    else:
        assert examples is not None
        if tasks:
            raise Refused("--tasks names results of a run; the number of tasks that are compared is --at-once")
        planned = [task_of_numbers(examples, clusters, known)]
    demands = Demands(power, alpha, at_once or len(planned))
    if json_output:
        tell_json(as_json(planned, difference, demands))
        return
    head, rows, numbers = table(planned, demands)
    print_table(head, rows, numbers)
    if difference is not None:
        tell()
        print_table(*needed_table(planned, difference, demands))
    tell()
    for line in legend(planned, difference, demands):
        tell_filled(line)
