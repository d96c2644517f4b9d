"""ComfyUI's contract for nodes: mappings, inputs, and tensors b h w c of float32 in [0, 1]."""

import importlib.util
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omgsr_jax import comfyui
from omgsr_jax.inference.progress import Progress
from omgsr_jax.inference.results import Upscaled
from omgsr_jax.inference.sizes import DEFAULT_SCALE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nodes(monkeypatch):
    """As ComfyUI loads a folder of custom_nodes: by its path, under a name of ComfyUI's."""
    folder, name = ROOT / "scripts" / "comfyui", "custom_nodes_x_omgsr"
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    return module.NODE_CLASS_MAPPINGS


class Doubling:
    """A model that repeats pixels, and says what it was asked for."""

    def restore(self, batch, options, on_progress=None):
        self.options, self.bits = options, {picture.bits for picture in batch}
        if on_progress:
            on_progress(Progress("decode", 1, 1, 0.5, 0))
        return [Upscaled(_doubled(picture), picture.size) for picture in batch]


def _doubled(picture):
    def larger(x):
        return None if x is None else x.repeat(2, 0).repeat(2, 1)

    return replace(picture, values=larger(picture.values), alpha=larger(picture.alpha))


def test_a_node_says_what_comfyui_asks(nodes):
    for node in nodes.values():
        inputs = node.INPUT_TYPES()["required"]
        method = getattr(node(), node.FUNCTION)
        assert set(inputs) == set(method.__code__.co_varnames[1 : method.__code__.co_argcount])
        assert isinstance(node.RETURN_TYPES, tuple)
        assert isinstance(node.CATEGORY, str)
        for kind, *options in inputs.values():
            if isinstance(kind, str) and kind in ("INT", "FLOAT"):
                (limits,) = options
                assert limits["min"] <= limits["default"] <= limits["max"]
    assert (
        nodes["OMGSRLoad"].RETURN_TYPES[0]
        == nodes["OMGSRUpscale"].INPUT_TYPES()["required"]["model"][0]
    )


def test_loading_the_nodes_imports_neither_jax_nor_torch():
    program = (
        "import sys, omgsr_jax.comfyui as nodes;"
        "[node.INPUT_TYPES() for node in nodes.NODE_CLASS_MAPPINGS.values()];"
        "print(sorted({'jax', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("channels", [3, 4])
def test_images_go_in_and_out_as_tensors(nodes, channels):
    image = torch.rand(2, 4, 6, channels)
    model = Doubling()
    (result,) = nodes["OMGSRUpscale"]().upscale(model, image, 2.0, "lab", 7)
    assert (result.dtype, tuple(result.shape)) == (torch.float32, (2, 8, 12, channels))
    np.testing.assert_allclose(result[:, ::2, 1::2], image, atol=1e-6)
    assert (model.options.color, model.options.seed, model.bits) == ("lab", 7, {16})


def test_the_first_choices_are_the_usual_ones(nodes):
    inputs = nodes["OMGSRUpscale"].INPUT_TYPES()["required"]
    model = Doubling()
    seed = inputs["seed"][1]["default"]
    nodes["OMGSRUpscale"]().upscale(model, torch.rand(1, 2, 2, 3), 4.0, inputs["color"][0][0], seed)
    assert (model.options.color, model.options.seed) == (None, None)
    assert inputs["scale"][1]["default"] == DEFAULT_SCALE


def test_a_model_stays_loaded(nodes, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "omgsr_jax.inference.loading.load", lambda *args, **more: calls.append((args, more)) or 1
    )
    comfyui._loaded.cache_clear()
    for _ in range(2):
        assert nodes["OMGSRLoad"]().load("nano", "auto", "128") == (1,)
    comfyui._loaded.cache_clear()
    assert calls == [(("nano",), {"precision": None, "strips": 128})]


def test_comfyuis_bar_shows_progress_and_ends_the_work(nodes, monkeypatch):
    shown = []

    class StoppedError(Exception):
        """What ComfyUI raises when a user stops a prompt."""

    class ProgressBar:
        def __init__(self, total):
            shown.append(total)

        def update_absolute(self, value, total=None):
            shown.append((value, total))
            raise StoppedError

    utils = types.ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar
    monkeypatch.setitem(sys.modules, "comfy", types.ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    with pytest.raises(StoppedError):
        nodes["OMGSRUpscale"]().upscale(Doubling(), torch.rand(1, 2, 2, 3), 2.0, "none", -1)
    assert shown == [100, (50, 100)]
