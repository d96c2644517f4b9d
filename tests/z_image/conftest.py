"""A small Z-Image: all kinds of blocks, random weights in shards, adapters, converted."""

from pathlib import Path

import pytest

from conversion.convert import convert
from conversion.parity import random_checkpoints

PRESET = random_checkpoints.PRESETS["z-image-tiny"]
SAID = {"mid_timestep": 254, "prompt": "sharp focus", "process_size": 64}


@pytest.fixture(scope="session")
def z_base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("z-image") / "base"
    random_checkpoints.write_base(folder, PRESET)
    return folder


@pytest.fixture(scope="session")
def z_adapter(z_base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("z-image") / "adapter"
    random_checkpoints.write_adapters(folder, z_base, PRESET)
    return folder


@pytest.fixture(scope="session")
def z_model(z_base, z_adapter, tmp_path_factory) -> Path:
    """Both, converted, for tiles of 64 px."""
    out = tmp_path_factory.mktemp("z-image") / "model"
    convert(str(z_base), out, adapter=str(z_adapter), **SAID)
    return out
