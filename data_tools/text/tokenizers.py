"""Tokenizers, loaded so that the same text gives the same ids in preprocessing, evaluation and generation.

No special token is ever added, whatever the tokenizer's own files ask for, and nothing is truncated or padded.
"""

from pathlib import Path

from data_tools.text.hugging_face_tokenizer import HuggingFaceTokenizer
from data_tools.text.sentencepiece_tokenizer import SentencePieceTokenizer
from data_tools.text.tokenizer import Tokenizer, TokenizerFiles
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    Manifest,
    content_id,
    read_manifest,
    record_file,
    refuse_invalid,
    verify_files,
)
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import is_file
from megatron_patches.foreign.printable import printable, storable

COMPANIONS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json", "generation_config.json"),
)
"""files beside a tokenizer that say how it is used: read by transformers, and by chats"""


def find_tokenizer(path: Path) -> TokenizerFiles:
    """Finds the tokenizer in a folder, or takes a `.model` file.

    Raises:
        TrainyardError: there is none, or more than one SentencePiece model.
    """
    if path.is_file() and path.suffix == ".model":
        return TokenizerFiles(path, None, storable(path.name), of_folder=False)
    if not path.is_dir():
        raise TrainyardError(
            f"tokenizer {printable(path)} is neither a folder nor a .model file. Train one with tools/tokenizer train "
            f"FILES --output {printable(path)} --vocab-size N, or give the folder of an existing one"
        )
    name = storable(path.resolve().name)
    if (path / "tokenizer.json").is_file():
        config = path / "tokenizer_config.json"
        return TokenizerFiles(path / "tokenizer.json", config if config.is_file() else None, name)
    models = sorted(file for file in path.glob("*.model") if file.is_file())
    if len(models) != 1:
        raise TrainyardError(
            f"tokenizer folder {printable(path)} has no tokenizer.json and {len(models)} .model files, expected one of "
            "either. A folder with vocab.json and merges.txt alone gets its tokenizer.json from transformers: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    return TokenizerFiles(models[0], None, name)


def tokenizer_id(files: TokenizerFiles, allow_invalid: bool = False) -> str:
    """Id of the manifest beside the files if it is theirs, else the hash of the files alone. Loads no tokenizer.

    Raises:
        TrainyardError: the manifest was edited, marks the tokenizer invalid, or does not match its files.
    """
    folder = files.model.parent
    manifest = _own_manifest(files)
    if manifest is None:
        return content_id("tokenizer", [], [record_file(file, folder) for file in files.present], {})
    if not allow_invalid:
        refuse_invalid(manifest, folder / MANIFEST, "allow it: --allow-invalid, or data.allow_invalid of a run")
    if problems := verify_files(manifest, folder, hashes=True):
        raise TrainyardError(f"{'; '.join(problems)}. Restore the tokenizer's files, or train it again")
    return manifest.id


def _own_manifest(files: TokenizerFiles) -> Manifest | None:
    """The manifest beside a tokenizer's files, if it is theirs."""
    path = files.model.parent / MANIFEST
    if not path.is_file():
        return None
    manifest = read_manifest(path)
    listed = {file.path for file in manifest.files}
    return manifest if manifest.kind == "tokenizer" and files.model.name in listed else None


def travelling_files(files: TokenizerFiles) -> dict[str, Path]:
    """What must lie in one folder for the tokenizer to be the same there, by the name in that folder: the files that
    its id is made of, and what beside them says how it is used, such as a chat template. A `.model` that was named
    itself (`of_folder` False) travels without companions: they may be those of another one.

    Raises:
        TrainyardError: its manifest was edited, or is of a later version.
    """
    folder = files.model.parent
    found = {file.name: file for file in files.present}
    manifest = _own_manifest(files)
    if manifest is not None:
        found |= {MANIFEST: folder / MANIFEST, **{file.path: folder / file.path for file in manifest.files}}
    if files.of_folder:
        found |= {name: folder / name for name in COMPANIONS if is_file(folder / name)}
    return found


def load_tokenizer(path: Path, allow_invalid: bool = False, parse_special: bool = False) -> Tokenizer:
    """Loads a Hugging Face folder with a `tokenizer.json`, or a SentencePiece `.model` (the file or its folder).

    Args:
        parse_special: let text become control tokens; for bytes as Megatron-LM writes them.

    Raises:
        TrainyardError: there is none, its files are damaged or were changed after its manifest was written, or that
            marks it invalid.
    """
    return load_tokenizer_files(find_tokenizer(path), allow_invalid, parse_special)


def load_tokenizer_files(files: TokenizerFiles, allow_invalid: bool = False, parse_special: bool = False) -> Tokenizer:
    """Loads a tokenizer that was found; see `load_tokenizer`."""
    identity = tokenizer_id(files, allow_invalid)
    if files.model.suffix == ".model":
        return SentencePieceTokenizer(files, identity, parse_special)
    return HuggingFaceTokenizer(files, identity, parse_special)
