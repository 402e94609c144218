"""Event files are TensorBoard's, byte for byte but for the times."""

import random
from pathlib import Path

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as tensorboards_checksum
from torch.utils.tensorboard import SummaryWriter

from megatron_patches.callbacks.tensorboard_file import EventFile, masked_crc32c


def test_checksums_are_tensorboards() -> None:
    draw = random.Random(0)
    for size in (0, 1, 8, 1000):
        data = draw.randbytes(size)
        assert masked_crc32c(data) == tensorboards_checksum(data)


def events(folder: Path) -> list[tuple[int, str, list[tuple[str, float]]]]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    [file] = folder.iterdir()
    read = [Event.FromString(record) for record in RawEventFileLoader(str(file)).Load()]
    kinds = [event.WhichOneof("what") for event in read]
    values = [[(value.tag, value.simple_value) for value in event.summary.value] for event in read]
    return list(zip((event.step for event in read), kinds, values, strict=True))


def test_it_says_what_torchs_writer_says(tmp_path: Path) -> None:
    theirs = SummaryWriter(str(tmp_path / "theirs"), purge_step=7)
    theirs.add_scalar("training/loss", 2.5, 7)
    theirs.close()
    ours = EventFile(tmp_path / "ours", first_step=7)
    ours.scalar("training/loss", 2.5, 7)
    ours.flush()
    read = events(tmp_path / "ours")
    ours.close()
    *_, session, scalar = expected = events(tmp_path / "theirs")
    assert read == [expected[0], session, scalar]
    assert scalar == (7, "summary", [("training/loss", 2.5)])
