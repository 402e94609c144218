"""A text as training reads it, with the settings that a run has that names nothing but its path."""

from functools import partial
from pathlib import Path

from data_tools.plans.samples_config import StreamConfig
from data_tools.reading.block import Part
from data_tools.samples.lengths import SampleLengths
from data_tools.streams.messages import StreamRequest
from data_tools.streams.settings import StreamSettings
from data_tools.streams.text_config import TextConfig
from data_tools.text_sources.encoding import open_encoding, recipe_of
from data_tools.text_sources.parts import parts_of_text


def stream_request(text: Path, tokenizer: Path, length: int) -> StreamRequest:
    """What training asks for with `text: FILE` and nothing more."""
    config = TextConfig.model_validate(str(text))
    settings = StreamSettings(
        samples=StreamConfig(name="stream"),
        lengths=SampleLengths(length + 1, length, (("tokens", length),), length),
        seed=1,
        shuffle_documents=config.shuffle_documents,
        max_epochs=1,
    )
    return StreamRequest(
        settings=settings,
        open_parts=partial(training_parts, config),
        open_encoding=partial(open_encoding, recipe_of(config, tokenizer), False),
    )


def training_parts(config: TextConfig) -> list[Part]:
    """The parts of a text; a function with a name, since the request goes to another process."""
    return parts_of_text(config, Path("/")).training
