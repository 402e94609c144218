"""Who may import whom, and who must start without torch (ARCHITECTURE.md, "Floors")."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("slurm", "data_tools", "megatron_patches", "tools")
HEAVY = {"torch", "transformers", "deepspeed", "megatron"}
SECTIONS = "*_config.py"
"""Sections of a run's configuration lie beside the code that reads them, and are a floor of their own."""

# Bottom to top; a file imports from its own folder and from floors named before it, wherever in it the import stands.
FLOORS = [
    "slurm",
    "megatron_patches",
    "megatron_patches/foreign",
    "megatron_patches/submission",
    "megatron_patches/artefacts",
    "megatron_patches/artefacts/evaluations",
    "megatron_patches/events",
    "data_tools/reading",
    "data_tools/reading/files",
    "data_tools/text",
    "data_tools/domain_tokens",
    "data_tools/records",
    "data_tools/encoding",
    "data_tools/datasets",
    "data_tools/datasets/preprocessing",
    "data_tools/datasets/regrouping",
    "data_tools/splits",
    "data_tools/samples",
    "megatron_patches/batch",
    "megatron_patches/configuration",
    SECTIONS,
    "data_tools/plans",
    "data_tools/streams",
    "data_tools/text_sources",
    "data_tools",
    "megatron_patches/artefacts/storage",
    "megatron_patches/artefacts/foreign_formats",
    "megatron_patches/artefacts/inventory",
    "megatron_patches/torch_patches",
    "megatron_patches/megatron_core_patches",
    "megatron_patches/deepspeed_patches",
    "megatron_patches/hardware",
    "megatron_patches/parameters",
    "megatron_patches/parallel",
    "megatron_patches/objectives",
    "megatron_patches/models/interface",
    "megatron_patches/models/attention",
    "megatron_patches/models/layers",
    "megatron_patches/models/transformer",
    "megatron_patches/models/transformer/transformers_formats",
    "megatron_patches/models/gpt/transformers_formats",
    "megatron_patches/models/gpt",
    "megatron_patches/models/encoder/transformers_formats",
    "megatron_patches/models/encoder",
    "megatron_patches/models",
    "megatron_patches/optim/slices",
    "megatron_patches/optim",
    "megatron_patches/run",
    "megatron_patches/checkpoint/files",
    "megatron_patches/checkpoint/tokenizer_files",
    "megatron_patches/checkpoint",
    "megatron_patches/checkpoint/offline",
    "megatron_patches/engine",
    "megatron_patches/profiling",
    "megatron_patches/callbacks",
    "megatron_patches/training",
    "megatron_patches/estimate",
    "megatron_patches/exchange",
    "megatron_patches/transformers_exchange/card",
    "megatron_patches/transformers_exchange",
    "megatron_patches/launch/init_from",
    "megatron_patches/launch",
    "megatron_patches/generation",
    "megatron_patches/evaluation/statistics",
    "megatron_patches/evaluation/tasks/formats",
    "megatron_patches/evaluation/tasks",
    "megatron_patches/evaluation/harness",
    "megatron_patches/evaluation/losses",
    "megatron_patches/evaluation/encoders",
    "megatron_patches/evaluation",
    "megatron_patches/evaluation/eval_only",
    "megatron_patches/benchmark",
    "data_tools/benchmark",
    "megatron_patches/report",
    "megatron_patches/tuning",
    "tools",
    "tools/run_files",
    "tools/run_views",
    "tools/evaluation_views",
    "tools/evaluation_views/heat_map",
    "tools/pages",
    "tools/commands",
    "tools/commands/checkpoint",
    "tools/commands/dataset",
    "tools/commands/evals/comparing",
    "tools/commands/evals/running",
    "tools/commands/evals",
    "tools/commands/generate",
    "tools/commands/inventory",
    "tools/commands/runs",
    "tools/commands/sync_to_hub",
    "tools/commands/tflops",
]

# Floors with modules that import torch; of these the others are named. Everything else must start without it.
WITH_TORCH = {
    "megatron_patches/batch": ["fields"],
    "megatron_patches/benchmark": ["comparison", "statistics", "turns", "worker_processes"],
    "megatron_patches/callbacks": [],
    "megatron_patches/checkpoint": [
        *("changed_data", "changed_settings", "identity", "other_work", "recorded_changes", "resume_check", "size"),
        "starting_point",
    ],
    "megatron_patches/checkpoint/files": ["boxes", "safetensors_header", "stored_files"],
    "megatron_patches/checkpoint/offline": ["choice"],
    "megatron_patches/deepspeed_patches": [],
    "megatron_patches/engine": [],
    "megatron_patches/evaluation": [
        *("asked", "exports", "one_checkpoint", "selection", "slurm_array"),
    ],
    "megatron_patches/evaluation/eval_only": ["asked", "plan", "rank", "table"],
    "megatron_patches/evaluation/harness": [],
    "megatron_patches/evaluation/encoders": ["pairs", "scores", "text_ends"],
    "megatron_patches/evaluation/losses": ["loss_data", "loss_sums"],
    "megatron_patches/exchange": ["deepspeed_folder", "known_source"],
    "megatron_patches/generation": ["evaluated_run"],
    "megatron_patches/megatron_core_patches": ["narrow_import"],
    "megatron_patches/models": ["parameter_table", "pipeline_partition", "registry"],
    "megatron_patches/models/transformer": [
        *("activations", "attention_problems", "flops", "fp8_problems", "parameters", "summary"),
    ],
    "megatron_patches/models/interface": ["architecture"],
    "megatron_patches/models/attention": [],
    "megatron_patches/models/layers": [],
    "megatron_patches/objectives": ["tally"],
    "megatron_patches/optim": ["rate_plot", "schedule"],
    "megatron_patches/optim/slices": [],
    "megatron_patches/parallel": ["flash_attn_extra", "kernels", "layout"],
    "megatron_patches/parameters": ["name_map", "name_patterns", "row", "tensor_slice"],
    "megatron_patches/profiling": ["time_breakdown"],
    "megatron_patches/torch_patches": [],
    "megatron_patches/training": [],
    "megatron_patches/transformers_exchange": [
        *("choice", "foreign_model", "import_plan", "kept_imports", "same_model", "sentencepiece_json"),
        *("shown_folder", "tokenizer_files", "tokenizer_roles"),
    ],
    "megatron_patches/transformers_exchange/card": ["card", "folder", "text"],
}


@cache
def syntax(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported_packages(file: Path) -> Iterator[tuple[str, int]]:
    """Top-level packages that a Python file imports, with the line."""
    for node in ast.walk(syntax(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # a relative import stays inside its package only while the dots do not lead out of it; none is used here
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module.split(".")[0], node.lineno


def imported_modules(file: Path) -> Iterator[str]:
    """Dotted names of modules that a Python file imports, wherever in the file, for types alone too."""
    for node in ast.walk(syntax(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circle(imports: Mapping[str, Collection[str]]) -> list[str]:
    """Some modules of which each imports the next and the last the first; empty where there are none."""
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module not in done:
            for other in imports[module]:
                if found := follow(other, [*way, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in imports if (found := follow(module, []))), [])


def floor_of(file: Path, checkout: Path) -> str:
    """The floor that a file belongs to."""
    own = file.name.endswith(SECTIONS.removeprefix("*"))
    return SECTIONS if own else file.relative_to(checkout).parent.as_posix()


def modules_of(checkout: Path) -> dict[str, Path]:
    """Our modules by their dotted names."""
    files = [file for package in PACKAGES for file in sorted((checkout / package).rglob("*.py"))]
    return {".".join(file.relative_to(checkout).with_suffix("").parts): file for file in files}


def wrong_imports(checkout: Path) -> list[str]:
    """Arrows that point up, and imports of what no module may import."""
    modules, found = modules_of(checkout), []
    height = {floor: number for number, floor in enumerate(FLOORS)}
    for file in modules.values():
        here = floor_of(file, checkout)
        for name in sorted(set(imported_modules(file)) & modules.keys()):
            there = floor_of(modules[name], checkout)
            if height[there] > height[here]:
                found.append(f"{file.relative_to(checkout)} imports {name}: {there} stands above {here}")
        for package, line in imported_packages(file):
            if package in {"tests", "train"}:
                found.append(f"{file.relative_to(checkout)}:{line} imports {package}")
    return found


def modules_without_torch() -> list[str]:
    """All that start without it."""
    return [
        name
        for name, file in modules_of(CHECKOUT).items()
        if file.name != "__main__.py"
        and ((floor := floor_of(file, CHECKOUT)) not in WITH_TORCH or file.stem in [*WITH_TORCH[floor], "__init__"])
    ]


IMPORT_EACH = """\
import importlib, sys
heavy = set(sys.argv[1].split(","))
for name in sys.argv[2:]:
    importlib.import_module(name)
    if loaded := heavy & sys.modules.keys():
        sys.exit(f"importing {name} loads {', '.join(sorted(loaded))}")
"""


def import_each(*modules: str, path: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    """Imports modules one after the other in a fresh interpreter; fails at the first that loads something heavy."""
    command = [sys.executable, "-c", IMPORT_EACH, ",".join(sorted(HEAVY)), *modules]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, check=False)


def test_imports_point_down() -> None:
    assert wrong_imports(CHECKOUT) == []


def test_the_architecture_shows_them_with_what_their_packages_say() -> None:
    text = (CHECKOUT / "ARCHITECTURE.md").read_text()
    shown = re.findall(r"^\| `([\w/*.]+)` \| (.*) \|$", text[text.index("| floor,") : text.index("## The way")], re.M)
    assert [floor for floor, _ in shown] == FLOORS
    for floor, purpose in shown:
        if floor != SECTIONS:
            assert (ast.get_docstring(syntax(CHECKOUT / floor / "__init__.py")) or "").splitlines()[0] == purpose


def test_every_folder_is_a_floor_and_holds_about_a_dozen_files() -> None:
    files = [file for file in modules_of(CHECKOUT).values() if not file.name.startswith("__")]
    assert {floor_of(file, CHECKOUT) for file in files} == set(FLOORS)
    for folder in {file.parent for file in files}:
        assert len([file for file in files if file.parent == folder]) <= 16, folder


def test_no_module_imports_itself_by_others() -> None:
    modules = modules_of(CHECKOUT)
    assert len(modules) > 300
    assert circle({name: sorted(set(imported_modules(file)) & modules.keys()) for name, file in modules.items()}) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": ["b", "c"], "b": [], "c": ["d"], "d": ["b", "c"]}) == ["c", "d"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        (
            "data_tools/text/x.py", "def f():\n    from data_tools.samples import split",
            "data_tools/text/x.py imports data_tools.samples.split: data_tools/samples stands above data_tools/text",
        ),
        (
            "megatron_patches/run/run_config.py", "from data_tools import run_data",
            "megatron_patches/run/run_config.py imports data_tools.run_data: data_tools stands above *_config.py",
        ),
        ("tools/x.py", "import json, train", "tools/x.py:1 imports train"),
    ],
)  # fmt: skip
def test_an_import_that_points_up_is_found(tmp_path: Path, file: str, text: str, found: str) -> None:
    for name, content in {"data_tools/samples/split.py": "", "data_tools/run_data.py": "", file: text}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert wrong_imports(tmp_path) == [found]


def test_command_lines_start_without_torch() -> None:
    done = import_each(*modules_without_torch())
    assert done.returncode == 0, done.stderr


def test_a_module_that_loads_torch_is_found(tmp_path: Path) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "innocent.py").write_text("import json")
    (tmp_path / "guilty.py").write_text("import torch")
    done = import_each("innocent", "guilty", path=tmp_path)
    assert (done.returncode, done.stderr) == (1, "importing guilty loads torch\n")


def test_the_launcher_needs_the_standard_library_alone() -> None:
    for file in ("launch", "job.py"):
        packages = {package for package, _ in imported_packages(CHECKOUT / "slurm" / file)}
        assert packages
        assert packages - {"slurm"} <= sys.stdlib_module_names
