"""A small FLUX.1-dev: all kinds of blocks, random weights in shards, adapters, converted."""

from pathlib import Path

import pytest

from conversion.convert import convert
from conversion.parity import random_checkpoints

PRESET = random_checkpoints.PRESETS["flux-tiny"]


@pytest.fixture(scope="session")
def flux_base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flux") / "base"
    random_checkpoints.write_base(folder, PRESET)
    return folder


@pytest.fixture(scope="session")
def flux_adapter(flux_base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flux") / "adapter"
    random_checkpoints.write_adapters(folder, flux_base, PRESET)
    return folder


@pytest.fixture(scope="session")
def flux_model(flux_base, flux_adapter, tmp_path_factory) -> Path:
    """Both, converted, for tiles of 64 px."""
    out = tmp_path_factory.mktemp("flux") / "model"
    convert(str(flux_base), out, adapter=str(flux_adapter), mid_timestep=244, process_size=64)
    return out
