"""What a user installs: the wheel has all that the commands need, and nothing that collides."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _build(source: Path, kind: str, out: Path) -> Path:
    """The wheel or the sdist of a source tree, made by the build backend of this environment."""
    program = f"import sys, hatchling.build as backend; print(backend.build_{kind}(sys.argv[1]))"
    name = _output(sys.executable, "-c", program, out, cwd=source).splitlines()[-1]
    return out / name


def _output(*command: object, **how) -> str:
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, **how)
    assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    return run.stdout


def _files(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="the build backend: pip install hatchling")
    return _build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_installs_one_package(wheel):
    names = {name.split("/")[0] for name in _files(wheel)}
    assert {name for name in names if not name.endswith(".dist-info")} == {"omgsr_jax"}


def test_the_wheel_has_the_package_and_the_formats_but_not_what_compares_with_pytorch(wheel):
    files = {name for name in _files(wheel) if ".dist-info/" not in name}
    package = _sources("omgsr_jax")
    formats = {name for name in _sources("conversion") if not name.startswith("conversion/parity/")}
    assert "omgsr_jax/assets/nano/omgsr.json" in package
    assert "conversion/convert.py" in formats
    assert files >= package | {f"omgsr_jax/{name}" for name in formats}
    assert not [name for name in files if {"parity", "tests", "scripts"} & set(Path(name).parts)]


def test_the_wheel_of_a_source_distribution_is_the_same(wheel, tmp_path):
    with tarfile.open(_build(ROOT, "sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert _files(_build(source, "wheel", tmp_path)) == _files(wheel)


def _sources(folder: str) -> set[str]:
    """The files of a folder, but for what Python leaves there."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_installed_wheel_restores_and_converts(tiny_base, tiny_adapter, tmp_path):
    """In an environment of its own, far from the checkout and without PyTorch."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    how = {"cwd": tmp_path, "env": environment | {"JAX_PLATFORMS": "cpu"}}
    _output(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python, omgsr = (tmp_path / "venv" / "bin" / name for name in ("python", "omgsr"))

    _output(python, "-m", "pip", "install", wheel, **how)
    _assert_absent(python, ("conversion", "torch", "diffusers", "peft", "transformers"), how)
    print(_output(omgsr, "demo", **how))
    assert list((tmp_path / "omgsr-demo").iterdir())
    assert "--adapter" in _output(omgsr, "convert", "--help", **how)

    # The tokenizer of the prompt is transformers', which comes with an extra.
    _output(python, "-m", "pip", "install", f"{wheel}[convert]", **how)
    _assert_absent(python, ("conversion", "torch", "diffusers", "peft"), how)
    model = tmp_path / "model"
    argv = ["convert", "--base", tiny_base, "--adapter", tiny_adapter, "--out", model]
    print(_output(omgsr, *argv, **how))
    described = _output(omgsr, "info", model, **how)
    print(described)
    assert "195" in described  # the mid-timestep of SD-Turbo's recipe


def _assert_absent(python: Path, packages: tuple[str, ...], how: dict) -> None:
    program = (
        "import sys; from importlib.util import find_spec; "
        "print([name for name in sys.argv[1:] if find_spec(name)])"
    )
    assert _output(python, "-c", program, *packages, **how).strip() == "[]"
