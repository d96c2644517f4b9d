"""The dial between nearer to the photograph and freer."""

import dataclasses

import numpy as np
import pytest

import omgsr_jax
from omgsr_jax import architectures, converted
from omgsr_jax.cli import main
from omgsr_jax.errors import InputError
from omgsr_jax.inference.prepare import for_inference, with_fidelity
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.models.timestep_head import TimestepHeadConfig
from omgsr_jax.process import Residual
from omgsr_jax.weights import variables
from tests.inference.conftest import photo
from tests.training.runs import random_base

_SMALLEST = dataclasses.replace(
    architectures.named("smallest"),
    encoder_lora=LoRASpec(rank=2, alpha=2),
    backbone_lora=LoRASpec(rank=2, alpha=2),
)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    out = tmp_path_factory.mktemp("adapted") / "model"
    random_base(out, _SMALLEST, 32)
    return str(out)


def _merged(directory, fidelity):
    return for_inference(with_fidelity(converted.read(directory), fidelity), "fp32")


@pytest.mark.parametrize(("fidelity", "share", "factor"), [(1, 0.5, 0.5), (-1, 1.5, 2)])
def test_it_moves_the_timestep_and_the_adapters_strength(adapted, fidelity, share, factor):
    given, trained, moved = (
        variables(for_inference(converted.read_base(adapted), "fp32")),
        variables(_merged(adapted, 0)),
        variables(_merged(adapted, fidelity)),
    )
    changed = [name for name in given if np.any(given[name][...] != trained[name][...])]
    assert {name.partition(".")[0] for name in changed} == {"vae", "backbone"}
    for name in given:
        adapter = trained[name][...] - given[name][...]
        np.testing.assert_allclose(
            moved[name][...], given[name][...] + share * adapter, rtol=1e-5, atol=1e-6
        )
    t_m = _SMALLEST.mid_timestep
    z_l = np.zeros((1, 4, 4, _SMALLEST.vae.latent_channels), np.float32)
    assert _merged(adapted, fidelity).mid_timestep(z_l) == round(t_m * factor)
    assert _merged(adapted, 0).mid_timestep(z_l) == t_m


def test_an_image_s_own_timestep_moves_too(tmp_path):
    generator = dataclasses.replace(_SMALLEST, adaptive=TimestepHeadConfig())
    random_base(tmp_path / "model", generator, 32)
    z_l = np.random.default_rng(0).standard_normal((3, 8, 8, generator.vae.latent_channels))
    times = [_merged(tmp_path / "model", f).mid_timestep(z_l.astype("f")) for f in (0, 1, -1)]
    assert len(set(np.asarray(times[0]))) > 1
    np.testing.assert_array_equal(times[1], np.round(times[0] / 2))
    np.testing.assert_array_equal(times[2], np.minimum(2 * times[0], 999))


def test_0_is_the_model_as_it_was_trained(adapted):
    plain, nearer, again = (
        omgsr_jax.load(adapted, **said).upscale(photo())
        for said in ({}, {"fidelity": 1.0}, {"fidelity": 0.0})
    )
    np.testing.assert_array_equal(plain, again)
    assert np.any(np.asarray(plain) != np.asarray(nearer))


def test_what_does_not_fit_is_said(adapted, tmp_path, capsys):
    with pytest.raises(InputError, match=r"fidelity must be within -1 .. 1, not 1\.5"):
        omgsr_jax.load(adapted, fidelity=1.5)
    random_base(tmp_path / "pisa", dataclasses.replace(_SMALLEST, process=Residual()), 32)
    with pytest.raises(InputError, match="take strengths instead"):
        omgsr_jax.load(tmp_path / "pisa", fidelity=0.5)
    with pytest.raises(SystemExit):
        main(["upscale", "photo.png", "-o", "out.png", "--fidelity", "lots"])
    assert "expected a number within -1 .. 1, not 'lots'" in capsys.readouterr().err
