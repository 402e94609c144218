"""Documents of all parts, tokenized in their order and written, so that a kill at any instant loses seconds alone."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing

import numpy as np

from data_tools.datasets.manifest import SourceFacts
from data_tools.datasets.preprocessing.batch import Batch
from data_tools.datasets.preprocessing.made_up import MadeUp
from data_tools.datasets.preprocessing.notes import BAD_NAMED, InjectionNote, Note, OutputNote, ReadingNote
from data_tools.datasets.preprocessing.outputs import Outputs
from data_tools.datasets.preprocessing.progress import Progress, Watch
from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.datasets.preprocessing.work_folder import Journal
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.proof import DifferentIds, EncodingProof
from data_tools.reading.block import BEGINNING, BadEntry, Block, Part, PartContent, Position
from data_tools.text.document_encoding import EncodedTexts
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted


class Tokenizing:
    """Reads parts, and writes their documents to the outputs.

    Args:
        note: where it begins; its reading, its outputs and its mark of the current part are kept up to date.
        open_outputs: the outputs as a note says; they are opened again where a part is done again.
    """

    def __init__(
        self,
        request: PreprocessRequest,
        parts: Sequence[Part],
        note: Note,
        open_outputs: Callable[[OutputNote], Outputs],
        made_up: MadeUp | None,
        watch: Watch,
        journal: Journal,
    ) -> None:
        self._request = request
        self._parts = parts
        self._note = note
        self._made_up = made_up
        self._watch = watch
        self._journal = journal
        self._open_outputs = open_outputs
        self._outputs = open_outputs(note.read)
        self._injection = [each.counts() for each in note.reading.injection]
        read = zip(parts, note.reading.sources, strict=False)
        self._passed_bytes = sum(part.size or source.size for part, source in read)
        self._total_bytes = 0 if any(part.size == 0 for part in parts) else sum(part.size for part in parts)
        self._reader = _Reader(parts, len(note.reading.sources), note.reading.position)
        self.text_bytes = 0
        """of the documents that this process read, in UTF-8"""

    @property
    def outputs(self) -> Outputs:
        """What is written to."""
        return self._outputs

    def run(self, pool: EncodingPool) -> None:
        """Reads to the end, or up to the tokens that are asked for.

        Raises:
            Damaged: a part is cut off or not of its format.
            TrainyardError: too many entries are no documents, or the sources have fewer tokens than were asked for.
        """
        try:
            while not self._read(pool):
                pass
        finally:
            self._outputs.close()

    def _read(self, pool: EncodingPool) -> bool:
        """Whether it came to the end; False where a part is to be done again."""
        reading = self._note.reading
        after = self._compared_before(pool)
        by_reference = tuple(reading.by_reference)
        pairs = pool.encode(self._reader.blocks(), by_reference, after)
        try:
            with closing(_generator(pairs)) as encoded:
                for block, each in encoded:
                    self._end_parts(self._reader.part_of_next())
                    self._take(block, each)
                    reading.proof = pool.proof.model_dump(mode="json")
                    if self._reached():
                        break
                    self._journal.keep(self._note_now)
        except DifferentIds as error:
            self._do_again(error)
            return False
        self._end()
        return True

    def _compared_before(self, pool: EncodingPool) -> EncodingProof | None:
        """What the same library showed so far; what another one showed before a kill is kept beside it."""
        reading = self._note.reading
        if reading.proof is None:
            return None
        proof = EncodingProof.model_validate(reading.proof)
        if (proof.library, proof.version) == (pool.proof.library, pool.proof.version):
            return proof
        reading.earlier_proofs = [*reading.earlier_proofs, reading.proof]
        return None

    def _take(self, block: Block, encoded: EncodedBlock) -> None:
        reading = self._note.reading
        texts, bad, made = encoded.texts, encoded.bad, 0
        if (wanted := self._wanted(texts[0])) is not None:
            texts = [each.first(wanted) for each in texts]
            # what stands behind the last document is not read, wherever blocks are cut
            bad = [each for each, before in zip(bad, encoded.before_bad, strict=True) if before < wanted]
        self._count_bad(bad)
        source = len(reading.sources)
        batches = [Batch.of(each, source, counts) for each, counts in zip(texts, self._injection, strict=True)]
        documents = batches[0].documents
        if self._request.max_length is not None:
            batches = [self._shortened(key, each, self._request.max_length) for key, each in enumerate(batches)]
        if self._made_up is not None:
            batches[0], made = self._made_up.among(batches[0], reading.documents, reading.made_up, self._injection[0])
        self._outputs.add(batches)
        reading.documents += documents
        reading.part_documents += documents
        reading.made_up += made
        reading.position = dict(block.position)
        self.text_bytes += encoded.text_bytes
        self._tell_progress(block.source_bytes)

    def _wanted(self, texts: EncodedTexts) -> int | None:
        """How many documents bring the dataset to the tokens that are asked for; None: more than these."""
        request = self._request
        if request.tokens is None:
            return None
        ends = texts.document_ends()
        if request.max_length is not None:  # which makes texts alone shorter, of one sequence each
            ends = np.cumsum(np.minimum(texts.lengths, request.max_length))
        documents = int(np.searchsorted(ends, request.tokens - self._outputs.tokens)) + 1
        return documents if documents <= len(ends) else None

    def _shortened(self, key: int, batch: Batch, most: int) -> Batch:
        kept, longer = batch.shortened(most, self._request.append_eod)
        self._note.reading.shortened[key] += longer
        return kept

    def _count_bad(self, bad: Sequence[BadEntry]) -> None:
        reading, most = self._note.reading, self._request.max_bad
        if reading.bad + len(bad) > most:
            reason = bad[most - reading.bad].reason
            before = f"; --max-bad {most:,} left out as many before it" if most else ""
            raise TrainyardError(f"{reason}{before}")
        for each in bad:
            if len(reading.bad_named) < BAD_NAMED:
                reading.bad_named.append(each.reason)
                self._watch.tell(f"left out: {each.reason}")
        reading.bad += len(bad)

    def _tell_progress(self, source_bytes: int) -> None:
        done = self._passed_bytes + source_bytes
        self._watch.progress(
            Progress("reading", self._note.reading.documents, self._outputs.tokens, done, self._total_bytes)
        )

    def _reached(self) -> bool:
        return self._request.tokens is not None and self._outputs.tokens >= self._request.tokens

    def _end_parts(self, number: int) -> None:
        """Notes what the parts before this one held, and where it begins."""
        while len(self._note.reading.sources) < number:
            self._end_part()

    def _end_part(self) -> None:
        reading = self._note.reading
        number = len(reading.sources)
        part, content = self._parts[number], self._reader.content(number)
        reading.sources.append(
            SourceFacts(
                name=part.name,
                size=content.size,
                sha256=content.sha256,
                documents=reading.part_documents,
                stretch=part.stretch,
            )
        )
        reading.position, reading.part_documents = {}, 0
        self._passed_bytes += part.size or content.size
        self._mark_part()

    def _mark_part(self) -> None:
        """Keeps where the part begins that is read next, for the case that it is to be done again."""
        reading = self._note.reading
        reading.injection = [InjectionNote.of(each) for each in self._injection]
        self._note.part_began = without_sources(reading)
        self._note.part_output = self._outputs.note(on_disk=False)

    def _do_again(self, error: DifferentIds) -> None:
        """Goes back to the beginning of the part, which the reference encodes then."""
        note = self._note
        self._watch.tell(f"note: {error}")
        sources = note.reading.sources
        by_reference = [*note.reading.by_reference, error.origin]
        began = note.part_began.model_copy(update={"by_reference": by_reference})
        note.part_began = began
        note.reading = without_sources(began)
        note.reading.sources = sources
        self._injection = [each.counts() for each in note.reading.injection]
        self._outputs.flush()
        self._outputs.close()
        self._outputs = self._open_outputs(note.part_output)
        self._reader = _Reader(self._parts, len(note.reading.sources), BEGINNING)

    def _end(self) -> None:
        """What is done once all is read."""
        request, reading = self._request, self._note.reading
        if request.tokens is None:
            self._end_parts(len(self._parts))
        elif self._reached():
            self._end_part()
        else:
            raise TrainyardError(
                f"the sources have {counted(self._outputs.tokens, 'token')} in "
                f"{counted(self._outputs.documents, 'document')}, --target-tokens (--tokens) asks for "
                f"{request.tokens:,}; give more sources, or ask for fewer"
            )
        if self._made_up is not None:
            rest, made = self._made_up.rest(reading.documents, reading.made_up, self._injection[0])
            reading.made_up += made
            if rest is not None:
                self._outputs.add([rest])
        self._outputs.begin()
        if request.shuffle_seed is None:
            reading.injection = [InjectionNote.of(each) for each in self._injection]
            self._note.read = self._outputs.finish()
        else:
            self._note_now()

    def _note_now(self) -> None:
        """Brings the note up to date; all files are on the disk up to there."""
        self._note.reading.injection = [InjectionNote.of(each) for each in self._injection]
        self._note.read = self._outputs.note()


class _Reader:
    """The blocks of parts one after the other, and what each part held."""

    def __init__(self, parts: Sequence[Part], first: int, position: Position) -> None:
        self._parts = parts
        self._at = first
        self._position = position
        self._current: Iterator[Block] = iter(())
        self._of_blocks: deque[int] = deque()
        self._contents: dict[int, PartContent] = {}

    def blocks(self) -> Iterator[Block]:
        """All blocks after the place where reading begins."""
        for number in range(self._at, len(self._parts)):
            part = self._parts[number]
            self._at, self._current = number, part.blocks(self._position, hashed=True)
            self._position = BEGINNING
            for block in self._current:
                self._of_blocks.append(number)
                yield block
            self._contents[number] = part.content()

    def part_of_next(self) -> int:
        """The number of the part whose block comes out next."""
        return self._of_blocks.popleft()

    def content(self, number: int) -> PartContent:
        """What a part held; one that is being read is read to its end for that."""
        if number not in self._contents:
            for _ in self._current:
                pass
            self._contents[number] = self._parts[number].content()
        return self._contents.pop(number)


def _generator(pairs: Iterator[tuple[Block, EncodedBlock]]) -> Generator[tuple[Block, EncodedBlock], None, None]:
    yield from pairs


def without_sources(reading: ReadingNote) -> ReadingNote:
    """A copy without the parts that were read: there may be very many, and one is made for each part."""
    lists = {
        name: list(getattr(reading, name))
        for name in ("bad_named", "shortened", "injection", "by_reference", "earlier_proofs")
    }
    return reading.model_copy(update={**lists, "sources": []})


def new_reading(keys: int) -> ReadingNote:
    """Where reading begins."""
    return ReadingNote(shortened=[0] * keys, injection=[InjectionNote() for _ in range(keys)])
