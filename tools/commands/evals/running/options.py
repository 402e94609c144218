"""The options of `tools/evals run`: what it asks, how, and what it does about later checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from megatron_patches.errors import Refused

if TYPE_CHECKING:
    from megatron_patches.evaluation.asked import Asked
    from megatron_patches.evaluation.tasks.fine_tuning import FineTuning


@dataclass(frozen=True)
class Questions:
    """What is asked, and of which checkpoints."""

    tasks: Annotated[
        list[str],
        typer.Option(
            metavar="TASK[,TASK...]",
            help="What to ask, [NAME=]WORD[:SOURCE]; `tools/evals tasks` lists the words. It may be given more than "
            "once. Example: --tasks hellaswag:data/hellaswag.jsonl,validation",
        ),
    ]
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="Which checkpoints: new (the default) and all take each that lacks a result; last; best; gold; "
            "steps, such as 1000, 1000,2000 or 1000:5000; every-500 or every-10B: the first at or after each multiple "
            "of steps, or, with K, M, B or T, of tokens. Example: --steps every-10B",
        ),
    ] = None
    shots: Annotated[
        int | None, typer.Option(min=0, help="Solved items in front of each question. Example: --shots 5")
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Ask only the first N items, of each part; the result says so. Example: --limit 100"),
    ] = None
    length: Annotated[
        int | None,
        typer.Option(
            min=2, help="Show the model this many tokens at once, not those of its training. Example: --length 4096"
        ),
    ] = None


@dataclass(frozen=True)
class Means:
    """How it is asked."""

    through: Annotated[
        Literal["export", "engine"] | None,
        typer.Option(
            help="Ask tasks of the harness through an export for transformers, which is made, verified and removed, or "
            r"in the run's own layers \[default: export, where transformers can express the model]. "
            "Example: --through engine",
        ),
    ] = None
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="Processes of this machine that share each matrix, in the engine. Example: 2")
    ] = 1
    pipeline_parallel: Annotated[
        int, typer.Option(min=1, help="Processes of this machine that share the layers, in the engine. Example: 2")
    ] = 1
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Texts that the model reads at once. Example: --batch-size 16")
    ] = None
    keep_exports: Annotated[
        bool, typer.Option("--keep-exports", help="Keep each export that is made, as exports/hf-step-N of the run.")
    ] = False
    again: Annotated[
        bool, typer.Option("--again", help="Replace results that are there, and try again what failed.")
    ] = False

    def asked(self, questions: Questions, learning: "Learning") -> "Asked":
        """All together, for each checkpoint.

        Raises:
            Refused: they do not go together.
        """
        from megatron_patches.evaluation.asked import Asked

        if self.through == "export" and self.tensor_parallel * self.pipeline_parallel > 1:
            raise Refused(
                "--tensor-parallel and --pipeline-parallel divide the model in the engine; leave out --through export"
            )
        return Asked(
            tasks=tuple(questions.tasks),
            shots=questions.shots,
            limit=questions.limit,
            length=questions.length,
            through=self.through,
            tensor=self.tensor_parallel,
            pipeline=self.pipeline_parallel,
            batch_size=self.batch_size,
            keep_exports=self.keep_exports,
            again=self.again,
            fine_tuning=learning.fine_tuning(),
        )


@dataclass(frozen=True)
class Learning:
    """How a copy of an encoder is fine-tuned on a task."""

    frozen: Annotated[
        bool,
        typer.Option(
            "--frozen", help="Train the head of glue-... tasks alone, on the features of the encoder as it is: faster."
        ),
    ] = False
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help=r"Passes over a glue-... task's train file \[default: 3; with --frozen 20]. Example: 5"
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(help=r"Largest learning rate of fine-tuning \[default: 3e-5; with --frozen 1e-2]. Example: 1e-5"),
    ] = None
    train_batch: Annotated[
        int | None,
        typer.Option(min=1, help=r"Texts or pairs of a step of fine-tuning \[default: 32]. Example: 16"),
    ] = None
    pooling: Annotated[
        Literal["cls", "mean"] | None,
        typer.Option(
            help="What the head of a fine-tuned encoder reads: the output at the first token, cls, or the mean over "
            r"all tokens \[default: cls]. Example: --pooling mean"
        ),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help=r"Fine-tune from seeds 0 to N - 1, and give means and spreads \[default: 1]. Example: --seeds 5"
        ),
    ] = None

    def fine_tuning(self) -> "FineTuning | None":
        """As it was asked for; None where no option was given.

        Raises:
            Refused: a number is out of its range.
        """
        given: dict[str, float | str | None] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "train_batch": self.train_batch,
        }
        given |= {"pooling": self.pooling, "seeds": self.seeds}
        if not self.frozen and all(value is None for value in given.values()):
            return None
        from megatron_patches.evaluation.tasks.fine_tuning import FineTuning

        return FineTuning.given(self.frozen, **given)


@dataclass(frozen=True)
class Later:
    """What to do about checkpoints that come later, and which job evaluates."""

    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Look for new checkpoints again and again, until the run is finished. Ctrl-C ends it."
        ),
    ] = False
    watch_every: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="Seconds between two looks of --watch. Example: 60")
    ] = 300
    come_back: Annotated[
        bool,
        typer.Option(
            "--come-back",
            help="Exit with 75 while the run is not finished, so that a script looks again later, as "
            "slurm/evals.slurm does.",
        ),
    ] = False
    slurm: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate nothing here: write a job array with a task for each checkpoint. Example: evals-array.slurm",
        ),
    ] = None
    submit: Annotated[
        bool,
        typer.Option("--submit", help="Submit the script of --slurm; the same command again submits no second job."),
    ] = False

    def refuse_together(self) -> None:
        """Raises Refused where options exclude each other."""
        given = {"--watch": self.watch, "--come-back": self.come_back, "--slurm": self.slurm is not None}
        named = [option for option, value in given.items() if value]
        if len(named) > 1:
            raise Refused(f"{' and '.join(named)} exclude each other; give one")
        if self.submit and self.slurm is None:
            raise Refused("--submit submits the script of --slurm FILE; name the file")
