"""A chat with a run's model, in a terminal or a pipe."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from data_tools.records.record import Message
from megatron_patches.foreign.printable import printable
from tools.terminal import remark

if TYPE_CHECKING:  # torch
    from megatron_patches.generation.continuation import Wanted
    from megatron_patches.generation.loaded_model import LoadedModel
    from megatron_patches.generation.written_text import WrittenText


class Chat:
    """Questions from standard input, a line each; replies on standard output as they are written.

    Raises:
        TrainyardError: no chat can be written for the model's tokenizer.
    """

    def __init__(self, model: "LoadedModel", wanted: "Wanted") -> None:
        from megatron_patches.generation.chat_prompts import ChatPrompts

        self._model = model
        self._prompts = ChatPrompts(model.tokenizer, model.tokenizer_folder)
        self._wanted = replace(wanted, ends=self._prompts.ends, stops=(*wanted.stops, *self._prompts.stops))
        self._history: list[Message] = []
        self._on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._begun = False

    def run(self) -> None:
        """Goes on until the questions end."""
        if self._on_terminal:
            import readline  # noqa: F401  lines can be edited, and earlier ones found again

            remark("Ctrl-C ends a reply, Ctrl-D the chat.")
        # whatever the locale says: what cannot be decoded is refused below, and ends nothing
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        for number, question in enumerate(self._questions()):
            self._reply(question, self._wanted.seed + number)

    def _questions(self) -> Iterator[str]:
        while True:
            try:
                line = input("> " if self._on_terminal else "")
            except EOFError:
                break
            except KeyboardInterrupt:
                if not self._on_terminal:
                    raise
                print()
                remark("Ctrl-D ends the chat.")
                continue
            if any("\ud800" <= each <= "\udfff" for each in line):
                remark("That was not UTF-8 text; set your terminal to it.")
            elif line.strip():
                yield line
        if self._on_terminal:
            print()

    def _reply(self, question: str, seed: int) -> None:
        from megatron_patches.generation.continuation import continue_text

        self._history.append(Message("user", question))
        room = max(self._model.window // 2, self._model.window - self._wanted.tokens)
        self._history, ids = self._prompts.fitting(self._history, room)
        self._begun = False
        with _interruptions() as interrupted:

            def hear(written: "WrittenText") -> bool:
                self._show(written.news())
                return not interrupted

            written, _ = continue_text(self._model, ids, replace(self._wanted, seed=seed), hear)
        self._show(written.news(is_over=True))
        print(flush=True)
        if reply := written.text.strip():
            self._history.append(Message("assistant", reply))
        else:  # nothing was said: no answer can follow it
            self._history.pop()

    def _show(self, text: str) -> None:
        """Prints more of a reply; white space at its beginning belongs to the template."""
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        print(printable(text, layout=True) if sys.stdout.isatty() else text, end="", flush=True)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Within it, Ctrl-C is put down in a list; the second one ends the process as usual."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
