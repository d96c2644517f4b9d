"""fp32 comparisons run with the highest matmul precision, on the CPU, without a network."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Most of the time goes into compiling tiny networks. `XLA_FLAGS= pytest` tests what users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Programs are compiled once for all processes of a run: pytest's, and those that tests start.
    _cache = tempfile.mkdtemp(prefix="omgsr-tests-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

from pathlib import Path

import jax
import pytest
from huggingface_hub import constants

import omgsr_jax
from conversion.convert import convert
from conversion.parity import random_checkpoints
from tests.fake_bucket import FakeBuckets
from tests.fake_hub import FakeHub

jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def compile_cache() -> Path:
    """Where a process that does not inherit this one's environment finds compiled programs."""
    return Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(scope="session")
def fake_buckets():
    """Buckets on loopback, one server for all tests: clients remember where they have asked."""
    pytest.importorskip("gcsfs", reason="needs gcsfs (the extra gcs)")
    with FakeBuckets().running() as buckets, pytest.MonkeyPatch.context() as patch:
        for name, value in buckets.environment.items():
            patch.setenv(name, value)
        yield buckets


@pytest.fixture
def bucket(fake_buckets):
    """The name of an empty one for this test."""
    name = f"test-{len(fake_buckets.buckets)}"
    fake_buckets.buckets[name] = {}
    return name


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A small SD-Turbo-like diffusers folder with random weights, saved by diffusers itself."""
    folder = tmp_path_factory.mktemp("checkpoints") / "base"
    random_checkpoints.write_base(folder, random_checkpoints.PRESETS["tiny"])
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base, tmp_path_factory) -> Path:
    """Adapters on it, saved by peft as the published training code saves them."""
    folder = tmp_path_factory.mktemp("checkpoints") / "adapter"
    random_checkpoints.write_adapters(folder, tiny_base, random_checkpoints.PRESETS["tiny"])
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_base, tiny_adapter, tmp_path_factory) -> Path:
    """Both, converted."""
    out = tmp_path_factory.mktemp("checkpoints") / "converted"
    convert(str(tiny_base), out, adapter=str(tiny_adapter))
    return out


@pytest.fixture(scope="session")
def model_64(tiny_base, tiny_adapter, tmp_path_factory) -> Path:
    """A model with a process size of 64 px: all its programs take seconds."""
    out = tmp_path_factory.mktemp("checkpoints") / "model-64"
    convert(str(tiny_base), out, adapter=str(tiny_adapter), process_size=64)
    return out


@pytest.fixture(scope="session")
def upscaler(model_64, compile_cache) -> omgsr_jax.Upscaler:
    return omgsr_jax.load(model_64)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch) -> FakeHub:
    """A hub on loopback, and an empty cache, which the process uses in place of the real ones."""
    server = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.stop()
