"""Who may import whom, and who must start without torch (ARCHITECTURE.md, "Floors")."""

import ast
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
OURS = {"data_tools", "megatron_patches", "tools", "slurm", "tests", "train"}
HEAVY = {"torch", "transformers", "deepspeed", "megatron"}

# floor -> packages that no file of it imports, wherever in the file the import stands
FORBIDDEN = {
    "data_tools": (OURS - {"data_tools"}) | HEAVY,
    "megatron_patches": OURS - {"megatron_patches", "data_tools"},
    "tools": OURS - {"tools", "megatron_patches", "data_tools"},
}

# what a command line needs in order to check a run; `*_config.py` beside them
TORCH_FREE_IN_ENGINE = [
    "accelerator",
    "batch.fields",
    "benchmark.comparison",
    "checkpoint.choice",
    "checkpoint.folders",
    "checkpoint.identity",
    "checkpoint.marks",
    "checkpoint.resume_check",
    "checkpoint.retention",
    "checkpoint.size",
    "checkpoint.stored_files",
    "config",
    "configuration.checks",
    "configuration.divisibility",
    "configuration.fields",
    "configuration.layers",
    "configuration.layout_checks",
    "configuration.length_checks",
    "configuration.merging",
    "configuration.name_patterns",
    "configuration.problems",
    "configuration.yaml_text",
    "device_checks",
    "estimate.activations",
    "estimate.communication",
    "estimate.memory",
    "estimate.rank_parameters",
    "estimate.report",
    "estimate.step_time",
    "estimate.text",
    "events",
    "hardware",
    "launch_checks.checks",
    "launch_checks.facts",
    "layout",
    "models.architecture",
    "models.gpt.architecture",
    "models.parameter_table",
    "models.pipeline_partition",
    "models.registry",
    "node",
    "optim.moment_table",
    "optim.schedule",
    "parallel.kernels",
    "parallel.layout",
    "parameter_count",
    "parameters.name_map",
    "parameters.name_patterns",
    "parameters.row",
    "parameters.tensor_slice",
    "plan",
    "progress",
    "run_config",
    "run_directory",
    "run_summary",
    "time_breakdown",
    "timetable",
    "tuning.candidates",
    "tuning.fit",
]


def imported_packages(file: Path) -> Iterator[tuple[str, int]]:
    """Top-level packages that a Python file imports, with the line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # a relative import stays inside its package only while the dots do not lead out of it; none is used here
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module.split(".")[0], node.lineno


def imported_modules(file: Path) -> Iterator[str]:
    """Dotted names of modules that a Python file imports, wherever in the file, for types alone too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
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


def wrong_imports(checkout: Path) -> list[str]:
    return [
        f"{file.relative_to(checkout)}:{line} imports {package}"
        for floor, forbidden in FORBIDDEN.items()
        for file in sorted((checkout / floor).rglob("*.py"))
        for package, line in imported_packages(file)
        if package in forbidden
    ]


def modules_without_torch() -> list[str]:
    """data_tools, the command lines, and what they need of the engine."""
    files = [file for folder in ("data_tools", "tools") for file in sorted((CHECKOUT / folder).rglob("*.py"))]
    files += sorted((CHECKOUT / "megatron_patches").rglob("*_config.py"))
    dotted = [".".join(file.relative_to(CHECKOUT).with_suffix("").parts) for file in files]
    return [*dotted, *(f"megatron_patches.{name}" for name in TORCH_FREE_IN_ENGINE)]


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


def test_no_module_of_the_engine_imports_itself_by_others() -> None:
    files = sorted((CHECKOUT / "megatron_patches").rglob("*.py"))
    modules = {".".join(file.relative_to(CHECKOUT).with_suffix("").parts): file for file in files}
    assert len(modules) > 150
    assert circle({name: sorted(set(imported_modules(file)) & modules.keys()) for name, file in modules.items()}) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": ["b", "c"], "b": [], "c": ["d"], "d": ["b", "c"]}) == ["c", "d"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("data_tools/x.py", "import torch.nn", "data_tools/x.py:1 imports torch"),
        (
            "data_tools/x.py",
            "def f():\n    from megatron_patches import config",
            "data_tools/x.py:2 imports megatron_patches",
        ),
        ("megatron_patches/a/x.py", "from tools.runs import app", "megatron_patches/a/x.py:1 imports tools"),
        ("tools/x.py", "import json, slurm", "tools/x.py:1 imports slurm"),
    ],
)
def test_an_import_that_points_up_is_found(tmp_path: Path, file: str, text: str, found: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
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
    packages = {package for package, _ in imported_packages(CHECKOUT / "slurm" / "launch")}
    assert packages
    assert packages <= sys.stdlib_module_names
