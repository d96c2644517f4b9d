"""The table of losses: that its rows fit the weights, the networks, and what is counted."""

import dataclasses

import jax.numpy as jnp
import pytest

from omgsr_jax import perceptual
from omgsr_jax.cost.flops import step_flops
from omgsr_jax.losses.total import LOSSES, Loss, LossWeights, Networks, Restoration, total
from omgsr_jax.process import DDPM
from omgsr_jax.training.blueprint import Blueprint
from tests.training.runs import smallest


def test_every_loss_has_a_weight():
    assert [field.name for field in dataclasses.fields(LossWeights)] == list(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_looks_through_is_a_network(name):
    row = LOSSES[name]
    assert set(row.needs) <= {*perceptual.NETWORKS, *perceptual.OWN}
    if row.look:
        assert row.look.network in row.needs
        assert row.look.network in perceptual.BACKBONES


def test_a_row_is_all_that_the_total_asks(monkeypatch):
    """A loss that the table replaces is computed from what is given, and needs what it says."""
    row = Loss(lambda g: jnp.abs(g.z_l - g.n.vgg).mean() * g.gan, needs=("vgg",), asks=("gan",))
    monkeypatch.setitem(LOSSES, "mse", row)
    weights = LossWeights(mse=2.0)
    x = jnp.zeros((1, 4, 4, 3))
    given = {"restoration": Restoration(x, x, x + 1, x, x), "process": DDPM(), "t_m": 9}
    assert weights.networks == {"vgg"}
    value, found = total(weights, Networks(vgg=jnp.asarray(3.0)), gan=jnp.asarray(7.0), **given)
    assert (value, found) == (2 * 2 * 7, {"mse": 2 * 7})
    with pytest.raises(ValueError, match=r"not given: \['vgg', 'gan'\]"):
        total(weights, Networks(), **given)


@pytest.mark.slow
def test_flops_are_counted_as_the_rows_say(monkeypatch):
    """Windows are counted one by one, and the edges of OC-EA-DISTS as much as the images."""

    def counted(name):
        config = smallest(losses={"features": 0, "gan": 0, name: 1}, data={"resolution": 448})
        return step_flops(Blueprint.of(config)).total

    base = counted("ldr")
    windows = counted("oc_dists") - base
    assert counted("oc_lpips") - base == windows > 0
    assert counted("oc_ea_dists") - base == 2 * windows
    monkeypatch.setitem(LOSSES, "oc_dists", LOSSES["oc_dists"]._replace(look=None))
    assert counted("oc_dists") == base
