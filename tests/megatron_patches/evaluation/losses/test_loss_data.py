"""What a loss is computed on: groups as the checkpoint's configuration names them, and what is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import Manifest, build_manifest, record_file
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.losses.loss_data import LossData, open_loss_data
from megatron_patches.evaluation.tasks.task import LossTask, TaskSettings
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import to_yaml
from tests.small_training import ENCODER, SmallData, overrides


def manifest(**identity: Any) -> Manifest:
    return build_manifest("checkpoint", [], {"step": 8, "identity": identity})


def groups_of(data: SmallData, count: int) -> str:
    """So many groups of a few documents each."""
    shares = [f"{number / count:.4f}:{(number + 1) / count:.4f}" for number in range(count)]
    return str([{"name": f"g{n}", "path": f"{data.folder}/text", "range": each} for n, each in enumerate(shares)])


def opened(
    config: RunConfig,
    limit: int | None = None,
    length: int | None = None,
    saved: Manifest | None = None,
    checkpoint: Path = Path("/nowhere"),
    **task: Any,
) -> LossData:
    asked = LossTask("validation", TaskSettings(limit=limit, length=length), **task)
    return open_loss_data(config, checkpoint, saved or manifest(), asked)


@pytest.fixture
def rotary(small_data: SmallData, tmp_path: Path) -> RunConfig:
    return small_data.run(tmp_path, overrides(model__position_embedding="rotary"))


def test_the_runs_own_group(rotary: RunConfig) -> None:
    data = opened(rotary)
    (group,) = data.groups
    assert (group.name, group.count, data.has_parts) == ("validation", 10, False)
    assert data.lengths.of("tokens") == 16
    (file,) = data.files()
    assert file.rows == 200
    assert file.sha256 is not None


def test_samples_and_lengths_decide_the_definition_and_z_loss_does_not(
    rotary: RunConfig, small_data: SmallData, tmp_path: Path
) -> None:
    definitions = [
        opened(rotary).definition(),
        opened(rotary, limit=9).definition(),
        opened(rotary, length=32).definition(),
        opened(small_data.run(tmp_path, overrides(data__split="7,3"))).definition(),
        opened(small_data.run(tmp_path, overrides(objective__name="prefix_lm"))).definition(),
    ]
    assert len(set(definitions)) == len(definitions)
    alike = small_data.run(tmp_path, overrides(objective__z_loss=1e-4, training__seed=3, model__layers=2))
    assert opened(alike).definition() == definitions[0]
    assert opened(rotary, limit=10).definition() == definitions[0]


def test_keys_of_encoders_leave_other_definitions_as_they_were(small_data: SmallData, tmp_path: Path) -> None:
    packs = opened(small_data.run(tmp_path, overrides(data__samples="{name: packs}")))
    decided = packs.decides()["samples"]
    assert sorted(decided) == ["answers_only", "block_documents", "filters", "longer", "name"]
    assert "special" not in packs.decides()


def test_where_logits_are_made_decides_no_loss(small_data: SmallData, tmp_path: Path) -> None:
    masked, whole, others = (
        opened(small_data.run(tmp_path, [*ENCODER, f"--objective.{switch}"])).definition()
        for switch in ("masked_logits_only=true", "masked_logits_only=false", "mask_all=true")
    )
    assert masked == whole
    assert masked != others


def test_more_than_there_is_is_all_of_it_where_it_was_asked_for(rotary: RunConfig) -> None:
    assert opened(rotary, limit=3).groups[0].count == 3
    everything = opened(rotary, limit=100_000).groups[0].count
    assert 150 < everything < 200
    assert opened(rotary, limit=100_000, length=32).groups[0].count == everything // 2
    with pytest.raises(Refused, match="has 0 samples of 4,001 tokens, of 3,087 in 40 documents"):
        opened(rotary, length=4000)


def test_of_29_groups_all_or_one(small_data: SmallData, tmp_path: Path) -> None:
    config = small_data.run(tmp_path, overrides(data__validation=groups_of(small_data, 29), data__split="100"))
    data = opened(config)
    assert [group.name for group in data.groups] == [f"g{number}" for number in range(29)]
    assert data.has_parts
    one = opened(config, groups=("g7",))
    assert ([group.name for group in one.groups], one.has_parts) == (["g7"], False)
    with pytest.raises(Refused, match="g77 is no validation group of the run; nearest g7, "):
        opened(config, groups=("g77",))


def test_named_groups_need_no_training_data(small_data: SmallData, tmp_path: Path) -> None:
    words = overrides(data__validation=groups_of(small_data, 2), data__split="100", data__path="gone/away")
    assert len(opened(small_data.run(tmp_path, words)).groups) == 2


def test_data_that_is_not_here(small_data: SmallData, tmp_path: Path) -> None:
    with pytest.raises(
        TrainyardError, match=r"of validation cannot be opened: .*gone/away.*evaluate where the run's data is"
    ):
        opened(small_data.run(tmp_path, overrides(data__path="gone/away")))
    with pytest.raises(Missing, match=r"of dataset cannot be opened: .*no dataset fits .*nothing\*.*correct its path"):
        open_loss_data(
            small_data.run(tmp_path),
            tmp_path,
            manifest(),
            LossTask("dataset", TaskSettings(), dataset=f"{tmp_path}/nothing*"),
        )


def test_data_that_changed_since(rotary: RunConfig, small_data: SmallData, tmp_path: Path) -> None:
    (group,) = opened(rotary).groups
    (shard,) = group.group.sources[0].shards
    opened(rotary, saved=manifest(dataset=shard.id, tokenizer=shard.facts.tokenizer.id))
    with pytest.raises(Refused, match=r"documents of data.path are others than tr900a"):
        opened(rotary, saved=manifest(dataset="0" * 64))
    with pytest.raises(Refused, match=r"data.split is 9,1 in the checkpoint and 8,2 now"):
        opened(rotary, saved=manifest(**{"data.split": "9,1"}))
    (tmp_path / "config.yaml").write_text(to_yaml(rotary))
    with pytest.raises(Refused, match=r"is another tokenizer \(.* was trained with: .*tokenizer 0{12}"):
        opened(rotary, saved=manifest(tokenizer="0" * 64), checkpoint=tmp_path)
    # what is named is read as it is: it was held out whole
    named = opened(rotary, saved=manifest(dataset="0" * 64), dataset=f"{small_data.folder}/more")
    assert named.groups[0].count == len(named.groups[0].samples) > 400


def test_learned_positions_end_where_their_table_does(small_data: SmallData, tmp_path: Path) -> None:
    learned = small_data.run(tmp_path)
    assert opened(learned, length=8).lengths.of("tokens") == 8
    with pytest.raises(Refused, match=re.escape("17: tr900a-28K-small has learned")):
        opened(learned, length=17)


def test_a_run_that_does_not_validate(small_data: SmallData, tmp_path: Path) -> None:
    without = small_data.run(tmp_path, overrides(evaluation="null"))
    with pytest.raises(Refused, match=r"it has no evaluation\.samples; say how many"):
        opened(without)
    assert opened(without, limit=5).groups[0].count == 5
    all_trained = small_data.run(tmp_path, overrides(evaluation="null", data__split="100"))
    with pytest.raises(Refused, match=r"has nothing to validate on: data\.split 100 leaves it no documents"):
        opened(all_trained, limit=5)


def test_held_out_text_stays_what_it_was(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another length or number of samples would hold out more documents, which the run was trained on."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    shutil.copytree(small_data.folder / "documents", tmp_path / "documents")
    words = overrides(
        data__path="null", data__text=f"{tmp_path}/documents/*.txt", data__split="100",
        model__position_embedding="alibi",
    )  # fmt: skip
    config = small_data.run(tmp_path, words)
    own, more = opened(config).groups[0], opened(config, limit=100_000).groups[0]
    longer = opened(config, limit=100_000, length=32).groups[0]
    assert own.count == 10 < more.count
    assert own.group.documents == more.group.documents == longer.group.documents == 10
    ids = {shard.id for group in (own, more, longer) for shard in group.group.sources[0].shards}
    assert len(ids) == 1
    assert longer.count <= more.count // 2


def pulled(folder: Path, config: RunConfig, tokenizer: Path) -> tuple[Path, Manifest]:
    """A checkpoint's folder with the tokenizer that travels in it."""
    checkpoint = folder / "step-0000000008"
    shutil.copytree(tokenizer, checkpoint / "tokenizer")
    (checkpoint / "config.yaml").write_text(to_yaml(config))
    files = [record_file(path, checkpoint) for path in sorted((checkpoint / "tokenizer").iterdir())]
    identity = tokenizer_id(find_tokenizer(tokenizer))
    return checkpoint, build_manifest("checkpoint", files, {"step": 8, "identity": {"tokenizer": identity}})


def test_a_pulled_checkpoint_needs_its_datasets_alone(small_data: SmallData, tmp_path: Path) -> None:
    here = small_data.run(tmp_path)
    gone = small_data.run(tmp_path, overrides(data__tokenizer="gone/away"))
    checkpoint, saved = pulled(tmp_path, gone, small_data.folder / "tokenizer")
    found = opened(gone, saved=saved, checkpoint=checkpoint)
    assert found.definition() == opened(here, saved=saved).definition()
    assert opened(gone, saved=saved, checkpoint=checkpoint, dataset=f"{small_data.folder}/more").groups[0].count > 400

    other = tmp_path / "other"  # a tokenizer of that name, and another one
    shutil.copytree(small_data.folder / "tokenizer", other)
    (other / "manifest.json").unlink()
    (other / "tokenizer_config.json").write_text("{}")
    changed = small_data.run(tmp_path, overrides(data__tokenizer=str(other)))
    assert opened(changed, saved=saved, checkpoint=checkpoint).definition() == found.definition()

    (checkpoint / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(Damaged, match=r"tokenizer\.json.*restore the checkpoint from a copy"):
        opened(gone, saved=saved, checkpoint=checkpoint)
    # what is in its place is enough
    assert opened(here, saved=saved, checkpoint=checkpoint).groups


def test_a_tokenizer_that_is_nowhere(small_data: SmallData, tmp_path: Path) -> None:
    gone = small_data.run(tmp_path, overrides(data__tokenizer="gone/away"))
    (tmp_path / "config.yaml").write_text(to_yaml(gone))
    with pytest.raises(Missing, match=r"did not travel with it and is not to be found .*gone/away"):
        opened(gone, saved=manifest(tokenizer="0" * 64), checkpoint=tmp_path)
