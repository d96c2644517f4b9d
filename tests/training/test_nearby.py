"""Emergency checkpoints on the hosts' own disks: the newest whole one wins, older ones go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omgsr_jax.errors import InputError
from omgsr_jax.training import log
from omgsr_jax.training.config import RunConfig
from omgsr_jax.training.nearby import Nearby
from tests.training import toy


class _PowerCutError(Exception):
    pass


def _cut(_batch):
    raise _PowerCutError


def _losses(workdir):
    return {step: values["loss"] for step, values in log.read(workdir).items() if "loss" in values}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "whole"
    toy.run(workdir, 25)
    return _losses(workdir)


@pytest.fixture
def cut_at_17(tmp_path):
    """A run with checkpoints after 10 steps and, on its host, after 12 and 16."""
    with pytest.raises(_PowerCutError):
        toy.run(tmp_path / "run", 25, at=17, do=_cut, emergency=tmp_path / "near")


def _steps(tmp_path):
    return sorted(int(path.name) for path in (tmp_path / "near").glob("*/*"))


@pytest.mark.usefixtures("cut_at_17")
def test_a_run_goes_on_from_the_newest_and_leaves_none_behind(uninterrupted, tmp_path, capsys):
    assert _steps(tmp_path) == [12, 16]
    toy.run(tmp_path / "run", 25, emergency=tmp_path / "near")
    assert "resumed from step 16\n" in capsys.readouterr().out
    assert _losses(tmp_path / "run") == uninterrupted
    assert _steps(tmp_path) == []


@pytest.mark.usefixtures("cut_at_17")
def test_a_damaged_one_is_passed_over(uninterrupted, tmp_path, capsys):
    (path,) = (tmp_path / "near").glob("*/16/*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    toy.run(tmp_path / "run", 25, emergency=tmp_path / "near")
    assert "resumed from step 12\n" in capsys.readouterr().out
    assert _losses(tmp_path / "run") == uninterrupted


@pytest.mark.usefixtures("cut_at_17")
def test_an_older_one_than_that_in_the_work_directory_is_not_used(tmp_path, capsys):
    toy.run(tmp_path / "run", 20)  # without: it goes on from 10
    toy.run(tmp_path / "run", 25, emergency=tmp_path / "near")
    said = capsys.readouterr().out
    assert "resumed from step 10\n" in said
    assert "resumed from step 20\n" in said


@pytest.mark.usefixtures("cut_at_17")
def test_another_run_in_the_same_folder_is_another_run(tmp_path, capsys):
    toy.run(tmp_path / "new", 5, emergency=tmp_path / "near")
    toy.run(tmp_path / "new", 6, emergency=tmp_path / "near")
    assert "resumed from step 5\n" in capsys.readouterr().out
    assert 16 in _steps(tmp_path)


@pytest.mark.usefixtures("cut_at_17")
def test_a_name_that_was_edited_leads_nowhere(tmp_path, capsys):
    (tmp_path / "run" / "run.id").write_text("../other")
    toy.run(tmp_path / "run", 25, emergency=tmp_path / "near")
    assert "resumed from step 10\n" in capsys.readouterr().out
    assert _steps(tmp_path) == [12, 16]  # of the name that it had


def test_every_type_comes_back_as_it_was(tmp_path):
    state = {
        "a/b": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
        "step": jnp.int32(7),
        "moments": (jnp.linspace(0, 1, 5), jnp.zeros((0, 2))),
    }
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    shardings = jax.tree.map(lambda _: device, state)
    nearby = Nearby(tmp_path, 1)
    nearby.save(3, state, {"position": 12})
    nearby.close()
    assert nearby.newest(shapes, shardings) == 3
    found, position = nearby.restore(3, shapes, shardings)
    assert position == {"position": 12}
    jax.tree.map(np.testing.assert_array_equal, found, state)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, state)
    other = shapes | {"step": jax.ShapeDtypeStruct((2,), np.int32)}
    assert nearby.newest(other, shardings) is None  # of another state, or on another mesh


@pytest.mark.parametrize("folder", ["", "gs://bucket/near"])
def test_it_needs_a_disk_of_the_host(folder):
    with pytest.raises(
        InputError, match=r"run\.emergency_folder is .* expected a folder on a disk"
    ):
        RunConfig(emergency_every=5, emergency_folder=folder)
