"""`tools/dataset blend`: the weights it gives, the YAML that a run reads back, and what it refuses."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.data_config import DataConfig
from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.indexed_dataset_writer import IndexedDatasetWriter
from data_tools.datasets.manifest import DatasetFacts, TokenizerFacts, manifest_path
from data_tools.samples.blend import PERIOD, whole_weights
from megatron_patches.artefacts.manifest import build_manifest, record_file, write_manifest
from megatron_patches.configuration.yaml_text import parse_yaml
from tests.command_line import Call, verb
from tools.commands.dataset import command_line
from tools.commands.dataset.blend_sources import names_from

HELD = {"en": 1600, "fr": 900, "no": 100, "code-0": 300, "code-1": 100}
CATALOGUE = "/catalogue/merged/"


def write(prefix: Path, tokens: int) -> None:
    """A dataset of ten documents of one length."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with IndexedDatasetWriter(prefix, "u2") as writer:
        for _ in range(10):
            writer.add_document(np.arange(tokens // 10))


def describe(prefix: Path, tokens: int, tokenizer: str) -> None:
    """A manifest that says so many tokens, whatever the dataset has."""
    facts = DatasetFacts(
        documents=10, sequences=10, tokens=tokens, dtype="uint16", largest_token_id=300, empty_documents=0,
        tokenizer=TokenizerFacts(id=tokenizer, name="small", vocab_size=500, end_of_document=None),
    )  # fmt: skip
    records = [record_file(path, prefix.parent) for path in (bin_path(prefix), idx_path(prefix))]
    write_manifest(manifest_path(prefix), build_manifest("dataset", records, facts.model_dump(), (), "made by a test"))


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the datasets of `HELD`, never changed."""
    folder = tmp_path_factory.mktemp("held")
    for name, tokens in HELD.items():
        write(folder / name, tokens)
    return folder


@pytest.fixture
def dataset(held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The verb, beside datasets in `data/`."""
    shutil.copytree(held, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return verb(command_line, monkeypatch, capsys)


@pytest.fixture
def weights(dataset: Call) -> Callable[..., dict[str, int]]:
    """Whole weights by source."""

    def ask(*arguments: object) -> dict[str, int]:
        done = dataset("blend", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return {each["name"]: each["whole_weight"] for each in json.loads(done.stdout)["sources"]}

    return ask


def test_weights_by_size(weights: Callable[..., dict[str, int]]) -> None:
    square_roots = dict(zip(("en", "fr", "no"), whole_weights([40, 30, 10]), strict=True))
    assert weights("data/en", "data/fr", "data/no", "--alpha", 0.5) == square_roots
    assert weights("data/en", "data/fr", "data/no", "--temperature", 2) == square_roots
    assert weights("data/en", "data/fr", "--alpha", 1) == {"en": 41_943, "fr": 23_593}
    assert weights("data/en", "data/fr", "--equal") == {"en": PERIOD // 2, "fr": PERIOD // 2}


def test_a_pattern_is_one_source_and_files_are_sources_each(weights: Callable[..., dict[str, int]]) -> None:
    assert weights("data/code-*", "data/en", "--alpha", 1) == {"code": PERIOD // 5, "en": PERIOD - PERIOD // 5}
    assert list(weights("data/code-0.idx", "data/code-1.bin", "--equal")) == ["code-0", "code-1"]
    assert list(weights("programs=data/code-*", "data/en", "--equal")) == ["programs", "en"]


def test_what_a_pattern_matches(dataset: Call, tmp_path: Path) -> None:
    write(tmp_path / "data" / ".code-9", 1000)  # what a writer that was killed leaves behind
    for pattern in ("data/*", str(tmp_path / "data" / "code-[01].idx")):
        done = dataset("blend", f"all={pattern}", "--equal", "--json")
        (source,) = json.loads(done.stdout)["sources"]
        names = [Path(each).name for each in source["datasets"]]
        assert names == sorted(HELD if pattern == "data/*" else ("code-0", "code-1"))
        assert source["tokens"] == sum(HELD[name] for name in names)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["data/en", "/other/fr"], ["en", "fr"]),
        (["data/en/*", "data/fr"], ["en", "fr"]),
        (["data/en/text", "data/fr/text"], ["en", "fr"]),
        (["a/en/shard_*_document", "a/fr/shard_*_document"], ["en", "fr"]),
        (["data/en_*"], ["en"]),
        (["a/text", "a/text"], ["text", "text"]),
        ([], []),
    ],
)
def test_names_from_paths(paths: list[str], names: list[str]) -> None:
    assert names_from(paths) == names


def test_a_table_for_people(dataset: Call) -> None:
    done = dataset("blend", "data/en", "data/fr", "data/code-*", "--alpha", 0.5, "--tokens", "1e6")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert lines[0] == ["source", "tokens", "share", "weight", "of", "65,536", "tokens", "read", "epochs"]
    assert lines[1] == ["en", "1,600", "55.172%", "44.444%", "29,127", "444,443", "277.777"]
    assert lines[-1] == ["(all)", "2,900", "100.000%", "100.000%", "65,536", "1,000,000", "344.828"]


def test_epochs_are_limited_and_the_others_get_the_rest(dataset: Call) -> None:
    done = dataset("blend", "data/en", "data/fr", "data/no", "--equal", "--tokens", 4000, "--max-epochs", 2, "--json")
    told = json.loads(done.stdout)
    read = {each["name"]: each["tokens_read"] for each in told["sources"]}
    assert read == {"en": 2000, "fr": 1800, "no": 200} and told["max_epochs"] == 2
    assert all(each["epochs"] <= 2 for each in told["sources"])
    assert done.stderr.startswith("at the limit of --max-epochs 2: fr, no; a run counts whole samples")


def test_training_documents_alone(dataset: Call) -> None:
    """Of a source of several datasets, as a run cuts it: over all of them."""
    done = dataset("blend", "data/en", "data/fr", "data/code-*", "--equal", "--split", "8,1,1", "--json")
    # 16 of 20 documents: 10 of 30 tokens and 6 of 10
    assert [each["tokens"] for each in json.loads(done.stdout)["sources"]] == [1280, 720, 360]


@pytest.mark.parametrize(
    "arguments",
    [
        ["data/en", "data/no", "data/code-*", "--alpha", 0.3],
        ["data/en", "data/no", "--equal", "--tokens", 3000, "--max-epochs", 2, "--split", "949,50,1"],
        ["data/en", "yes=data/no", "1e3=data/fr", "--equal"],
    ],
)
def test_the_section_of_a_run_makes_the_same_weights(dataset: Call, arguments: list[Any]) -> None:
    section = parse_yaml(dataset("blend", *arguments, "--yaml").stdout, "here")
    described = json.loads(dataset("blend", *arguments, "--json").stdout)
    DataConfig.model_validate({**section["data"], "tokenizer": "data/bpe", "sequence_length": 8})
    sources = section["data"]["sources"]
    whole = whole_weights([each["weight"] for each in sources])
    assert list(whole) == [each["whole_weight"] for each in described["sources"]]
    for source, other in zip(sources, described["sources"], strict=True):
        limit = {"max_epochs": 2} if "--max-epochs" in arguments else {}
        assert source == {"name": other["name"], "weight": source["weight"], "path": other["path"], **limit}
        assert len(str(source["weight"])) <= 10, "as few digits as make the same weights"
    assert section["data"].get("split") == described["split"]


def test_the_section_is_a_line_for_each_source(dataset: Call) -> None:
    done = dataset("blend", "data/en", "data/fr", "--equal", "--yaml")
    lines = [
        "data:",
        "  path: null  # in place of a base run's",
        "  sources:",
        "    - {name: en, weight: 0.5, path: data/en}",
    ]
    assert done.stdout.splitlines()[:4] == lines


@pytest.mark.parametrize(
    "content",
    [
        {"fr": 0.25, "en": 0.75},
        [{"ratio": 1, "dataset_path": f"{CATALOGUE}fr"}, {"ratio": 3, "dataset_path": f"{CATALOGUE}en"}],
        [{"weight": 1, "path": "x/fr/text"}, {"weight": 3, "path": "x/en/text"}],
        [{"weight": 1, "name": "fr"}, {"ratio": 3, "path": "en"}],
        [{"weight": 1, "path": "x/fr.bin"}, {"ratio": 3, "path": "x/en.idx"}],
    ],
)
def test_ratios_from_a_file(weights: Callable[..., dict[str, int]], tmp_path: Path, content: Any) -> None:
    (tmp_path / "ratios.json").write_text(json.dumps(content))
    found = weights("data/en", "data/fr", "--ratios", "ratios.json")
    assert found == {"en": 3 * PERIOD // 4, "fr": PERIOD // 4}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"en": 1}', "fr: no ratio in the file"),
        ('{"en": 1, "fr": 1, "de": 1}', "de: not among the sources"),
        ('{"en": 0, "fr": 1}', "en: 0 is not a positive, finite number"),
        ('{"en": NaN, "fr": 1}', "en: nan is not"),
        ('{"en": "0.5", "fr": true}', "fr: True is not"),
        ('{"en": 1e999, "fr": -1}', "en: inf is not"),
        ('[{"ratio": 1, "path": "en"}, {"ratio": 1, "path": "x/en", "name": "en"}]', "two sources are called en"),
        ('[{"ratio": 1, "path": "en"}, {"ratio": 1}]', "entry 2 of ratios.json names no source"),
        ('[{"ratio": 1, "weight": 1, "path": "en"}]', "entry 1 of ratios.json has not one ratio"),
        ('[{"ratio": 1, "path": ["en"]}]', "a name and a path are texts"),
        ('[{"ratio": 1, "path": "en", "max_epochs": 2}]', "has the key 'max_epochs'"),
        ("[1, 2]", "entry 1 of ratios.json is not an object"),
        ("[]", "neither an object of names and ratios nor a list"),
        ('"en"', "neither an object of names and ratios nor a list"),
        ("{", "ratios.json is not JSON"),
        ('{"en": 1, "fr": 1, "en": 9}', "an object has the key 'en' more than once"),
        ('[{"ratio": 1, "path": "en", "ratio": 2}]', "an object has the key 'ratio' more than once"),
    ],
)
def test_ratios_that_do_not_fit(dataset: Call, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "ratios.json").write_text(content)
    done = dataset("blend", "data/en", "data/fr", "--ratios", "ratios.json")
    assert done.returncode == 2 and told in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["data/en"], "and here from none"),
        (["data/en", "--equal", "--alpha", 0], "and here from --alpha and --equal"),
        (["data/en", "--alpha", 1.5], "an alpha of 1.5 is not from 0 to 1"),
        (["data/en", "--temperature", 0.5], "a temperature of 0.5"),
        (["data/en", "--equal", "--json", "--yaml"], "give one of them"),
        (["data/en", "--equal", "--tokens", "nan"], "--tokens nan is not a number of tokens"),
        (["data/en", "--equal", "--tokens", 0], "--tokens 0 is not"),
        (["data/en", "--equal", "--max-epochs", 2], "--max-epochs needs --tokens"),
        (["data/en", "--equal", "--tokens", 10, "--max-epochs", 0], "--max-epochs 0 is not above 0"),
        (["data/en", "--equal", "--tokens", 5000, "--max-epochs", 3], "5,000 tokens cannot be read"),
        (["data/en", "--equal", "--tokens", 1e17, "--max-epochs", 3], "Give more data or fewer --tokens"),
        (["data/en", "--equal", "--split", "a"], "split 'a' is not a list of numbers"),
        (["data/en", "--equal", "--split", "0,1"], "source en (data/en) holds no tokens in the training documents"),
        (["data/x*", "--equal"], "source x: no dataset fits data/x* (looked for .idx files)"),
        (["data/x", "--equal"], "data/x.bin does not exist"),
        (["data/en", "data/en.idx", "--equal"], "two sources are called en"),
        (["en=data/fr", "data/en", "--equal"], "two sources are called en"),
        (["-x=data/fr", "--equal"], "No such option"),
        (["a\x1bb=data/fr", "--equal"], r"'a\x1bb' is no name: use letters, digits"),
        ([f"{'a' * 81}=data/fr", "--equal"], "at most 80 characters"),
        (["é=data/fr", "--equal"], "NAME=PATH gives a source another name"),
        (["", "--equal"], "'' names no dataset"),
        (["data/en", "--ratios", "none.json"], "none.json does not exist"),
    ],
)
def test_what_is_refused(dataset: Call, arguments: list[Any], told: str) -> None:
    done = dataset("blend", *arguments)
    assert done.returncode == 2 and told in " ".join(done.stderr.split()) and not done.stdout


def test_a_manifest_is_asked_first(dataset: Call, tmp_path: Path) -> None:
    describe(tmp_path / "data" / "en", 10**9, tokenizer="a" * 64)
    done = dataset("blend", "data/en", "--equal", "--json")
    assert json.loads(done.stdout)["sources"][0]["tokens"] == 10**9


def test_datasets_of_two_tokenizers(dataset: Call, tmp_path: Path) -> None:
    for name, tokenizer in (("en", "a" * 64), ("fr", "b" * 64)):
        describe(tmp_path / "data" / name, HELD[name], tokenizer)
    done = dataset("blend", "data/en", "data/fr", "--equal")
    assert done.returncode == 2 and "data/en and data/fr were made with different tokenizers" in done.stderr


def test_small_weights_that_rounding_changes_are_told(dataset: Call, tmp_path: Path) -> None:
    ratios: Mapping[str, float] = {"en": 1.0, "fr": 1e-6, "no": 0.5}
    (tmp_path / "ratios.json").write_text(json.dumps(ratios))
    done = dataset("blend", "data/en", "data/fr", "data/no", "--ratios", "ratios.json")
    assert done.stderr == "weights are whole parts of 65,536, which changes small ones: fr (1 for 0.0437)\n"
