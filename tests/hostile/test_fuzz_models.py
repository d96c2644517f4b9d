"""Random damage to what describes a model or holds its weights: a result, or one sentence.

A few seconds of it run by default, the same each time. For more, say how many cases there shall be
of each kind of file: OMGSR_FUZZ_CASES=2000 pytest tests/hostile/test_fuzz_models.py
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings

from conversion import configs, flux_configs, z_image_configs
from conversion.keymap import DIFFUSERS, VAE, convert_state
from conversion.peft_adapters import Adapter
from conversion.recipes import Settings
from conversion.tensor_files import SafetensorsFile, open_tensors
from omgsr_jax import converted
from omgsr_jax.descriptions import build, read_json
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.models.clip_text import CLIPTextConfig
from omgsr_jax.models.flux import FluxConfig
from omgsr_jax.models.qwen3 import Qwen3Config
from omgsr_jax.models.t5 import T5Config
from omgsr_jax.models.z_image import ZImageConfig
from omgsr_jax.process import DDPM, FlowMatching

from . import bases, models
from .judge import assert_sentence, command
from .mutations import damaged

_ASKED = os.environ.get("OMGSR_FUZZ_CASES")
_CASES = int(_ASKED or 25)
_MOST_SECONDS = 20.0


class Target(NamedTuple):
    """A file of a folder, and what reads it."""

    file: str
    read: Callable[[Path], Any]
    share: float = 1.0  # of the cases: what takes long gets fewer


class Originals(NamedTuple):
    model: Path
    base: Path
    generator: OMGSR


@pytest.fixture(scope="module")
def whole(originals, tmp_path_factory) -> Originals:
    model, base = (
        Path(shutil.copytree(path, tmp_path_factory.mktemp("fuzz") / path.name))
        for path in originals
    )
    _write_other_configs(base)
    return Originals(model, base, OMGSR(converted.read_card(model).generator, rngs=None))


def _write_other_configs(base: Path) -> None:
    """Of kinds of parts that the small model does not have."""
    shutil.copyfile(base / bases.VAE, base / "model-1.safetensors")
    names = list(SafetensorsFile(base / "model-1.safetensors"))
    shards = {"weight_map": dict.fromkeys(names, "model-1.safetensors")}
    for name, content in {
        "flux": flux_configs.flux_json(FluxConfig()),
        "flow": flux_configs.flow_matching_json(FlowMatching()),
        "z_image": z_image_configs.z_image_json(ZImageConfig()),
        "shifted": z_image_configs.flow_matching_json(FlowMatching(base_shift=1, max_shift=1)),
        "ddpm": configs.scheduler_json(DDPM()),
        "clip": {"model_type": "clip_text_model", **vars(CLIPTextConfig())},
        "t5": {"model_type": "t5", "feed_forward_proj": "gated-gelu", **vars(T5Config())},
        "qwen3": {
            "model_type": "qwen3",
            "rms_norm_eps": 1e-6,
            "layer_types": ["full_attention"],
            "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
            **{k: v for k, v in vars(Qwen3Config()).items() if k not in ("norm_eps", "rope_theta")},
        },
        "model.safetensors.index": shards,
    }.items():
        (base / f"{name}.json").write_text(json.dumps(content))


def _config(reader: Callable[[dict[str, Any], str], Any]) -> Callable[[Path], Any]:
    return lambda path: reader(read_json(path), str(path))


def _weights(generator: OMGSR, path: Path) -> None:
    part = path.parent.name
    found = convert_state(
        open_tensors(path.parent, path.stem),
        nnx.state(generator.vae if part == "vae" else generator.backbone, _BASE),
        spelling=VAE if part == "vae" else DIFFUSERS,
        headline=f"the weights in {path} do not fit",
    )
    assert all(np.isfinite(array).all() for array in found.values())


_BASE = nnx.filterlib.Not(nnx.LoRAParam)


def _adapter(generator: OMGSR, path: Path) -> None:
    for factor in Adapter(path.parent).plan_factors(generator.backbone).values():
        assert np.isfinite(factor.read()).all()


def _card(path: Path) -> None:
    card = converted.read_card(path.parent)
    content = {name: value for name, value in card.to_json().items() if name != "format"}
    assert converted.ModelCard.from_json(content, "again") == card


def _command(*argv: Any) -> None:
    answer = command(*argv)
    if answer.code:
        raise InputError(answer.err)


def _converted(path: Path) -> None:
    base, out = path.parents[1], path.parents[2] / "out"
    try:
        _command("convert", "--base", base, "--adapter", base, "--out", out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _targets(whole: Originals) -> dict[str, Target]:
    def of_weights(path: Path) -> None:
        _weights(whole.generator, path)

    def of_adapter(path: Path) -> None:
        _adapter(whole.generator, path)

    return {
        "card": Target("omgsr.json", _card, 2),
        "unet config": Target(bases.UNET_CONFIG, _config(configs.unet_config)),
        "vae config": Target(bases.VAE_CONFIG, _config(configs.vae_config)),
        "scheduler": Target(bases.SCHEDULER, _config(configs.ddpm)),
        "recipe": Target("recipe.json", _config(lambda c, where: build(Settings, c, where))),
        "flux config": Target("flux.json", _config(flux_configs.flux_config)),
        "flow scheduler": Target("flow.json", _config(flux_configs.flow_matching)),
        "z-image config": Target("z_image.json", _config(z_image_configs.z_image_config)),
        "shifted scheduler": Target("shifted.json", _config(z_image_configs.flow_matching)),
        "qwen3 config": Target("qwen3.json", _config(z_image_configs.qwen3_config)),
        "ddpm scheduler": Target("ddpm.json", _config(configs.ddpm)),
        "clip config": Target("clip.json", _config(configs.clip_text_config)),
        "t5 config": Target("t5.json", _config(flux_configs.t5_config)),
        "index": Target(
            "model.safetensors.index.json", lambda path: open_tensors(path.parent, "model")
        ),
        "adapter config": Target("unet_lora_adapter/adapter_config.json", of_adapter),
        "adapter": Target("unet_lora_adapter/adapter_model.safetensors", of_adapter),
        "vae weights": Target(bases.VAE, of_weights),
        "unet weights": Target(bases.UNET, of_weights, 0.5),
        "info": Target("omgsr.json", lambda path: _command("info", path.parent), 0.1),
        "manifest": Target(models.MANIFEST, lambda path: _command("info", path.parents[1]), 0.1),
        "metadata": Target(models.METADATA, lambda path: _command("info", path.parents[1]), 0.1),
        "convert": Target(bases.UNET_CONFIG, _converted, 0.04),
    }


_NAMES = list(_targets(Originals(Path(), Path(), None)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", _NAMES)
def test_damage_is_one_sentence_or_none(whole, name, tmp_path):
    target = _targets(whole)[name]
    converted_kinds = ("card", "info", "manifest", "metadata")
    original = whole.model if name in converted_kinds else whole.base
    folder = Path(shutil.copytree(original, tmp_path / "folder"))
    if name in ("manifest", "metadata"):  # digests would find all of it
        models.without_digests(folder)
    path = folder / target.file
    ended: Counter[str] = Counter()

    @settings(
        max_examples=max(1, round(_CASES * target.share)),
        derandomize=_ASKED is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(damaged(path.read_bytes()))
    def judge(content: bytes) -> None:
        path.write_bytes(content)
        started = time.perf_counter()
        try:
            target.read(path)
            ended["read"] += 1
        except InputError as error:
            assert_sentence(str(error).splitlines()[0])
            ended["refused"] += 1
        assert time.perf_counter() - started < _MOST_SECONDS, "it took too long"

    judge()
    print(f"{name}: {dict(ended)}")
    assert ended.total()
