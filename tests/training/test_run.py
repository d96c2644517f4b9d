"""A run put together from its config: nothing allocated early, and what it makes of a base."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from omgsr_jax import converted
from omgsr_jax.errors import InputError
from omgsr_jax.training import work_directory
from omgsr_jax.training.blueprint import Blueprint
from omgsr_jax.training.config import MeshConfig
from omgsr_jax.training.export import export
from omgsr_jax.training.run import Run
from tests.training.runs import smallest


@pytest.fixture(scope="module")
def run():
    return Run.of(smallest(), jax.devices()[:1])


def test_a_run_is_shapes_until_it_is_asked_for_arrays(run):
    leaves = jax.tree.leaves((run.layout.state, run.layout.frozen))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert dict(run.mesh.shape) == {"data": 1, "fsdp": 1, "spatial": 1, "tensor": 1}


def test_what_a_run_makes_lies_as_its_layout_says(run):
    for made, shapes, shardings in (
        (run.start(), run.layout.state, run.layout.state_sharding),
        (run.frozen(), run.layout.frozen, run.layout.frozen_sharding),
    ):

        def same(array, shape, sharding):
            assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
            assert array.sharding.is_equivalent_to(sharding, array.ndim)

        jax.tree.map(same, made, shapes, shardings)


def test_a_written_model_is_trained_on_from_its_own_adapters(run, tmp_path):
    start = run.start()
    adapters = {name: array + 1 for name, array in start.generator.items()}
    run.write_model(str(tmp_path / "model"), adapters)
    assert converted.read_card(tmp_path / "model").generator == run.blueprint.generator_config
    config = smallest(model={"architecture": "", "path": str(tmp_path / "model")})
    again = Run.of(config, jax.devices()[:1])
    jax.tree.map(np.testing.assert_array_equal, again.start().generator, adapters)
    jax.tree.map(np.testing.assert_array_equal, again.frozen(), run.frozen())


def test_a_run_of_many_devices_is_exported_by_one(run, tmp_path):
    """Eight devices are not here."""
    workdir, start = tmp_path / "run", run.start()
    config = dataclasses.replace(run.config, mesh=MeshConfig(data=2, fsdp=4))
    with work_directory.opened(workdir, config.to_dict(), config.run) as saved:
        saved.save(3, start, SimpleNamespace(get_state=dict))
    assert export(workdir, "latest", str(tmp_path / "model")) == 3
    written = converted.by_name_on_host(tmp_path / "model")
    for name, array in start.generator.items():
        np.testing.assert_array_equal(written[name], array)
    with pytest.raises(InputError, match="exists already"):
        export(workdir, "latest", str(tmp_path / "model"))


def test_a_run_without_data_or_with_the_wrong_batch_says_so_before_it_loads(monkeypatch):
    monkeypatch.setattr(Run, "frozen", lambda self: pytest.fail("weights were loaded"))
    with pytest.raises(InputError, match=r"config\.data\.sources is empty"):
        Run.of(smallest(), jax.devices()[:1]).task({})
    wrong = smallest(data={"sources": ("photos",), "batch_size": 3, "accumulation": 2})
    with pytest.raises(InputError, match="a multiple of 2, such as 4"):
        Run.of(wrong, jax.devices()[:1]).task({})


def test_a_blueprint_needs_one_base():
    with pytest.raises(InputError, match=r"set either config\.model\.path"):
        Blueprint.of(smallest(model={"path": "/nowhere"}))
