"""The data package needs no PyTorch: not in its sources, and not by way of what it imports."""

import ast
import subprocess
import sys
from pathlib import Path

import omgsr_jax.data

PACKAGE = Path(omgsr_jax.data.__file__).parent


def test_no_source_mentions_torch_in_an_import():
    sources = sorted(PACKAGE.glob("*.py"))
    assert len(sources) > 5
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            roots = {name.partition(".")[0] for name in names}
            assert not roots & {"torch", "torchvision"}, f"{path.name}:{node.lineno}"


def test_importing_everything_loads_no_torch():
    modules = ", ".join(f"omgsr_jax.data.{path.stem}" for path in PACKAGE.glob("[a-z]*.py"))
    program = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
