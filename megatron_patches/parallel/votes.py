"""Questions that all ranks answer together between two steps: one message, on its way while the next step runs."""

import torch
import torch.distributed as dist
from torch import Tensor


class Question:
    """One thing that ranks must agree on."""

    def __init__(self) -> None:
        self.vote = 0
        """this rank's answer, a number of up to 63 bits; it stands until it is changed"""
        self.verdict = 0
        """the largest vote of any rank when the step before this one ended, the same on every rank"""


class StepVotes:
    """Callbacks get their questions when they are made, on every rank the same ones in the same order.

    No step waits for an answer: the votes cast after one step are known after the next.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._questions: list[Question] = []
        self._asked: tuple[dist.Work, Tensor] | None = None

    def ask(self) -> Question:
        """A new question, to be asked after every step from now on."""
        assert self._asked is None, "the ranks are voting already"
        self._questions.append(Question())
        return self._questions[-1]

    def collect(self) -> None:
        """Take in the votes that are on their way, if any."""
        if self._asked is None:
            return
        work, votes = self._asked
        work.wait()
        for question, verdict in zip(self._questions, votes.tolist(), strict=True):
            question.verdict = verdict
        self._asked = None

    def send(self) -> None:
        """Let this rank's votes travel."""
        if self._questions:
            votes = torch.tensor([question.vote for question in self._questions], dtype=torch.int64)
            work = dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
            self._asked = work, votes
