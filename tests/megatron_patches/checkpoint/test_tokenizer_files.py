"""The tokenizer's files travel with every checkpoint, and a checkpoint has its tokenizer from them."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools.text.tokenizers import find_tokenizer, tokenizer_id, travelling_files
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.inventory.removal import folder_size
from megatron_patches.artefacts.inventory.weights import is_optimizer_file, weights_of
from megatron_patches.artefacts.location import parse_location
from megatron_patches.artefacts.manifest import (
    Manifest,
    build_manifest,
    read_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import hash_file
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.checkpoint.offline.reshape import reshape_checkpoint
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer, own_tokenizer_files
from megatron_patches.checkpoint.tokenizer_files.travelling import (
    TravellingTokenizer,
    keep_tokenizer,
    read_tokenizer,
    stored_tokenizer,
)
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_artefacts import make_artefact
from tests.small_training import SmallData, overrides, train_launch
from tools.commands.sync_to_hub.items import Choice
from tools.commands.sync_to_hub.pull import Pull, pull
from tools.commands.sync_to_hub.run import Task, push

NAMES = ["tokenizer/manifest.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"]


def travelled(manifest: Manifest) -> list[str]:
    return sorted(file.path for file in manifest.files if file.path.startswith("tokenizer/"))


def id_of(place: Path) -> str:
    return tokenizer_id(find_tokenizer(place))


def change(path: Path) -> None:
    """Other bytes, the same size."""
    path.chmod(0o644)
    path.write_bytes(b" " * path.stat().st_size)


@pytest.fixture
def own(small_data: SmallData, tmp_path: Path) -> Path:
    """A tokenizer's folder that a test may change."""
    return Path(shutil.copytree(small_data.folder / "tokenizer", tmp_path / "own"))


@pytest.fixture(scope="module")
def trained(small_data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of 4 steps, saved whole at its end and as weights at steps 2 and 4; its data and tokenizer are gone."""
    folder = tmp_path_factory.mktemp("travelling")
    data = SmallData(folder / "data")
    shutil.copytree(small_data.folder, data.folder)
    asked = overrides(training__steps=4, checkpoint__every_steps=4, checkpoint__weights_every_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
        launch = start_launch(data.run(folder, asked))
    run_on_ranks(train_launch, 1, str(launch.directory))
    shutil.rmtree(data.folder)
    return launch.run


@pytest.fixture
def saved(trained: RunFolder, tmp_path: Path) -> Path:
    """A copy of its last checkpoint, which a test may damage."""
    newest = list_checkpoints(trained.checkpoints)[0]
    return Path(shutil.copytree(newest, tmp_path / "runs" / trained.name / "checkpoints" / newest.name))


class TestFilesOfACheckpoint:
    def test_every_save_has_them_by_links_to_one_copy(self, trained: RunFolder, small_data: SmallData) -> None:
        for content in ("full", "weights"):
            for folder in list_checkpoints(trained.checkpoints, content):
                manifest = read_manifest(folder / "manifest.json")
                assert travelled(manifest) == NAMES
                assert verify_files(manifest, folder, hashes=True) == []
                assert id_of(folder / "tokenizer") == id_of(small_data.folder / "tokenizer")
        (kept,) = trained.tokenizers.iterdir()
        assert (kept / "tokenizer.json").stat().st_nlink == 4  # three folders and the run's own
        assert (kept / "tokenizer.json").stat().st_mode & 0o222 == 0

    def test_what_goes_with_a_folder_leaves_out_what_has_other_names(self, trained: RunFolder, tmp_path: Path) -> None:
        folder = list_checkpoints(trained.checkpoints)[0]
        alone = Path(shutil.copytree(folder, tmp_path / "alone"))
        linked = sum((folder / name).stat().st_size for name in NAMES)
        assert folder_size(folder) == folder_size(alone) - linked

    def test_weights_of_it_have_them_whatever_their_names(self, saved: Path) -> None:
        assert travelled(weights_of(read_manifest(saved / "manifest.json"))) == NAMES
        assert is_optimizer_file("optimizer-00000.safetensors")
        assert not is_optimizer_file("tokenizer/optimizer.model")

    def test_another_layout_of_it_has_them(self, saved: Path, tmp_path: Path) -> None:
        for number, alone in enumerate((False, True)):
            reshaped = tmp_path / str(number)
            assert travelled(reshape_checkpoint(saved, reshaped, 2, weights_only=alone)) == NAMES
            assert (reshaped / NAMES[1]).samefile(saved / NAMES[1])

    def test_another_layout_of_what_is_damaged_is_not_made(self, saved: Path, tmp_path: Path) -> None:
        change(saved / NAMES[1])
        with pytest.raises(Damaged, match=r"tokenizer\.json does not have the sha256"):
            reshape_checkpoint(saved, tmp_path / "reshaped", 2, weights_only=False)
        assert not (tmp_path / "reshaped").exists()


class TestOwnTokenizer:
    def test_its_own_files_come_first(self, saved: Path) -> None:
        tokenizer = own_tokenizer(saved, read_manifest(saved / "manifest.json"), load_resolved(saved / "config.yaml"))
        assert tokenizer.decode(tokenizer.encode("abc")) == "abc"
        assert tokenizer.name == "tokenizer"  # of the folder that the run's YAML names

    @pytest.mark.parametrize("name", NAMES)
    def test_files_that_were_changed(self, saved: Path, name: str) -> None:
        change(saved / name)
        with pytest.raises(Damaged, match=r"has sha256 .*restore the checkpoint from a copy"):
            own_tokenizer_files(saved, read_manifest(saved / "manifest.json"))

    def test_a_file_that_was_put_beside_them(self, saved: Path) -> None:
        (saved / NAMES[2]).unlink()
        manifest = rewritten(saved, travelling=True)
        (saved / NAMES[2]).write_text('{"eos_token": "a"}')
        with pytest.raises(Damaged, match="none of the checkpoint's files"):
            own_tokenizer_files(saved, manifest)

    def test_a_template_that_was_put_beside_them(self, saved: Path) -> None:
        """It is no part of the tokenizer's id, and an export would hold it."""
        (saved / "tokenizer" / "chat_template.jinja").unlink(missing_ok=True)
        manifest = rewritten(saved, travelling=True)
        (saved / "tokenizer" / "chat_template.jinja").write_text("{{ x }}")
        with pytest.raises(Damaged, match=r"chat_template\.jinja is none of the checkpoint's files"):
            own_tokenizer_files(saved, manifest)

    def test_files_of_another_tokenizer(self, saved: Path) -> None:
        (saved / NAMES[0]).unlink()
        manifest = rewritten(saved, travelling=True)
        with pytest.raises(Damaged, match="and the checkpoint was trained with"):
            own_tokenizer_files(saved, manifest)

    def test_a_checkpoint_of_an_earlier_version(self, saved: Path, own: Path) -> None:
        """It has the tokenizer that its configuration names, as long as that is the same one."""
        manifest = rewritten(saved, travelling=False, configured=own)
        assert own_tokenizer_files(saved, manifest).model == own / "tokenizer.json"
        assert own_tokenizer(saved, manifest, load_resolved(saved / "config.yaml")).id == id_of(own)
        (own / "manifest.json").unlink()
        with pytest.raises(Missing, match=r"was trained with tokenizer [0-9a-f]{12}, .*own\). Bring that tokenizer"):
            own_tokenizer_files(saved, manifest)


class TestTravelling:
    def test_what_belongs_to_a_tokenizer(self, own: Path) -> None:
        (own / "manifest.json").unlink()
        for name in ("chat_template.jinja", "special_tokens_map.json", "generation_config.json", "model.safetensors"):
            (own / name).write_text("{}")
        files = travelling_files(find_tokenizer(own))
        assert sorted(files) == [
            *("chat_template.jinja", "generation_config.json", "special_tokens_map.json"),
            *("tokenizer.json", "tokenizer_config.json"),
        ]

    def test_a_model_of_sentencepiece(self, tmp_path: Path) -> None:
        """Named itself it comes alone: what lies beside it may belong to another one."""
        folder = tmp_path / "pieces"
        make_artefact(folder, "dataset", {"a.model": b"pieces", "special_tokens_map.json": b"{}"}, {})
        assert list(travelling_files(find_tokenizer(folder / "a.model"))) == ["a.model"]
        assert list(travelling_files(find_tokenizer(folder))) == ["a.model", "special_tokens_map.json"]
        placed = tmp_path / "checkpoint"
        read_tokenizer(folder / "a.model", id_of(folder / "a.model")).put_into(placed)
        assert id_of(placed / "tokenizer") == id_of(folder / "a.model")

    def test_another_tokenizer_than_that_of_the_identity(self, own: Path) -> None:
        identity = id_of(own)
        (own / "manifest.json").unlink()
        with pytest.raises(Refused, match="was changed since the launch was checked"):
            read_tokenizer(own, identity)

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
    def test_where_links_fail_files_are_written(
        self, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        kept = keep_tokenizer(read_tokenizer(own, id_of(own)), RunFolder(tmp_path))
        monkeypatch.setattr(os, "link", fail)
        assert_placed(kept, tmp_path / "checkpoint", links=1)

    @pytest.mark.parametrize("harm", [Path.unlink, change])
    def test_a_copy_that_was_harmed_harms_no_checkpoint(
        self, own: Path, tmp_path: Path, harm: Callable[[Path], None]
    ) -> None:
        """The next launch makes it again, and mends what had been linked to it."""
        kept = keep_tokenizer(read_tokenizer(own, id_of(own)), RunFolder(tmp_path))
        assert_placed(kept, tmp_path / "first", links=2)
        (folder,) = RunFolder(tmp_path).tokenizers.iterdir()
        for name in travelling_files(find_tokenizer(folder)):
            harm(folder / name)
        assert_placed(kept, tmp_path / "second", links=1)
        again = keep_tokenizer(kept, RunFolder(tmp_path))
        assert_placed(again, tmp_path / "third", links=3 if harm is change else 2)
        for file in kept.files:
            assert hash_file(tmp_path / "first" / file.record.path) == (file.record.sha256, file.record.size)
        assert [each.name for each in RunFolder(tmp_path).tokenizers.iterdir()] == [folder.name]

    def test_a_run_that_cannot_be_written_to(self, own: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainyardError, match="cannot be written to"):
            keep_tokenizer(read_tokenizer(own, id_of(own)), RunFolder(tmp_path / "gone"))

    def test_nothing_is_written_through_a_link(self, own: Path, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir()
        (tmp_path / "tokenizers").symlink_to(tmp_path / "victim")
        with pytest.raises(Refused, match="is a link to"):
            keep_tokenizer(read_tokenizer(own, id_of(own)), RunFolder(tmp_path))
        assert list((tmp_path / "victim").iterdir()) == []

    def test_a_checkpoint_without_any(self, saved: Path, tmp_path: Path) -> None:
        assert stored_tokenizer(saved, rewritten(saved, travelling=False)).put_into(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_pulled_to_an_empty_root_generates(trained: RunFolder, tmp_path: Path, weights_only: bool) -> None:
    """Neither the run's data nor its tokenizer is on that machine."""
    location = parse_location(f"file://{tmp_path}/bucket/{trained.name}")
    assert {line.word for line in push(Task(trained.path, location, Choice()))} == {"sent"}
    into = tmp_path / "elsewhere" / trained.name
    assert {line.word for line in pull(Pull(location, into, weights_only=weights_only, steps="4"))} == {"fetched"}
    assert run_on_ranks(generate, 1, into)[0].startswith("abc")


def generate(run: Path) -> str:
    """A short continuation, in a process of its own."""
    from megatron_patches.generation.continuation import Wanted, continue_texts
    from megatron_patches.generation.loaded_model import load_model
    from megatron_patches.generation.sampling import Sampling

    model = load_model(checkpoints_with_weights(RunFolder(run)), passed_over=print)
    ((_, written),) = continue_texts(model, ["abc"], Wanted(4, Sampling(0.0)))
    return written.prompt + written.text


def assert_placed(tokenizer: TravellingTokenizer, folder: Path, links: int) -> None:
    """Its files are right in a new folder, and have so many names."""
    for record in tokenizer.put_into(folder):
        assert hash_file(folder / record.path) == (record.sha256, record.size)
        assert (folder / record.path).stat().st_nlink == links


def rewritten(folder: Path, travelling: bool, configured: Path | None = None) -> Manifest:
    """The checkpoint with a manifest of what lies in it now: without its tokenizer, as an earlier version wrote it, and
    with a tokenizer at another place."""
    if not travelling:
        shutil.rmtree(folder / "tokenizer")
    if configured is not None:
        before = load_resolved(folder / "config.yaml").data.tokenizer
        text = (folder / "config.yaml").read_text()
        assert str(before) in text
        (folder / "config.yaml").write_text(text.replace(str(before), str(configured)))
    saved = read_manifest(folder / "manifest.json")
    files = [record_file(folder / file.path, folder) for file in saved.files if (folder / file.path).exists()]
    manifest = build_manifest("checkpoint", files, saved.facts, saved.parents, "made by a test")
    write_manifest(folder / "manifest.json", manifest)
    return manifest
