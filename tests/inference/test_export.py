"""What is exported runs without this package, and gives what `upscale` gives."""

import os
import re
import subprocess
import sys
import sysconfig

import jax
import numpy as np
import pytest
from PIL import Image

from omgsr_jax import cli
from omgsr_jax.inference import export

from .conftest import photo

# Without `site`, an editable installation of the package is not found.
_WITHOUT_THE_PACKAGE = """
import importlib.util, sys
sys.path.append(sys.argv[1])
assert importlib.util.find_spec("omgsr_jax") is None
exec(open("block.py").read())
"""


@pytest.fixture(scope="module")
def exported(model_64, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "out"
    command = ["export", "--model", str(model_64), "--format", "stablehlo", "--input", "16x20"]
    assert cli.main([*command, "--out", str(out)]) == 0
    return out


def test_the_readme_turns_an_image_into_what_upscale_gives(exported, upscaler, compile_cache):
    image = photo(20, 16)
    Image.fromarray(image).save(exported / "input.png")
    (block,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    (exported / "block.py").write_text(block)
    libraries = sysconfig.get_paths()["purelib"]
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WITHOUT_THE_PACKAGE, libraries],
        cwd=exported,
        env={
            "JAX_COMPILATION_CACHE_DIR": str(compile_cache),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": os.environ["XLA_FLAGS"],  # other optimisations give other bits
        },
        check=True,
    )
    upscaler.steps(image.shape[:2])  # on a canvas of its own, whatever came before
    with Image.open(exported / "output.png") as output:
        np.testing.assert_array_equal(np.asarray(output), np.asarray(upscaler.upscale(image)))


def test_one_file_is_for_all_platforms_and_any_number_of_images(exported):
    function = jax.export.deserialize(bytearray((exported / export.FUNCTION).read_bytes()))
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    images = function.in_avals[-1]
    assert images.shape[1:] == (20, 16, 3)
    assert not isinstance(images.shape[0], int)
    assert function.mlir_module_serialized  # lowered for each of them already


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--input", "16x16"], "goes with --format stablehlo"),
        (["--format", "stablehlo"], "needs --input"),
        (["--format", "stablehlo", "--input", "16"], "WIDTHxHEIGHT"),
        (["--format", "stablehlo", "--input", "16x16", "--scale", "9"], "within 1 .. 8"),
    ],
)
def test_wrong_options_of_export_exit_with_2(capsys, wrong, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", "--model", "nano", "--out", "x", *wrong])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
