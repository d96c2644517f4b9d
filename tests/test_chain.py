"""Chains of many steps, against diffusers' schedulers."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm

from omgsr_jax import chain
from omgsr_jax.errors import InputError
from omgsr_jax.process import DDPM, FlowMatching, Residual, ScaledDDPM

SHAPE = (2, 6, 5, 3)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD |= {"clip_sample": False, "timestep_spacing": "trailing"}


def toy(z, t):
    """A network in NumPy, the same on both sides."""
    return np.tanh(0.7 * np.asarray(z, np.float64) + t / 500).astype(np.float32)


def drawn(number):
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def theirs(scheduler, times):
    """Every latent of diffusers' chain; its step gets its own time, the network gets ours."""
    z, latents = torch.from_numpy(drawn(0)).double(), []
    for its_own, t in zip(scheduler.timesteps, times, strict=True):
        prediction = torch.from_numpy(toy(z.numpy(), t)).double()
        z = scheduler.step(prediction, its_own, z).prev_sample
        latents.append(z.numpy())
    return latents


def assert_close(ours, others):
    for number, (a, b) in enumerate(zip(ours[1:], others, strict=True)):
        error = np.abs(np.asarray(a) - b).max() / np.abs(b).max()
        assert error < 1e-5, f"step {number}: {error:.1e}"


def run(process, times, fresh=None):
    return chain.Chain(toy, process, times, fresh).run(jnp.asarray(drawn(0)))


def with_exact_schedule(scheduler, steps):
    """diffusers multiplies a thousand numbers in fp32: that alone is 1e-5."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("steps", [8, 20])
def test_a_chain_of_noise_predictions_is_that_of_ddim(steps):
    scheduler = with_exact_schedule(DDIMScheduler(**SD), steps)
    times = chain.timesteps(DDPM(), steps)
    assert times == scheduler.timesteps.tolist()
    assert_close(run(DDPM(), times), theirs(scheduler, times))


def test_with_fresh_noise_it_is_that_of_ddpm(monkeypatch):
    scheduler = with_exact_schedule(DDPMScheduler(**SD), 20)
    times = chain.timesteps(ScaledDDPM(), 20)
    numbers = iter(range(1, 21))

    def randn(*_, **__):
        return torch.from_numpy(drawn(next(numbers))).double()

    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", randn)
    others = theirs(scheduler, times)
    ours = run(ScaledDDPM(), times, lambda number, z: jnp.asarray(drawn(number + 1)))
    assert_close(ours, others)
    assert np.abs(np.asarray(ours[1]) - np.asarray(run(DDPM(), times)[1])).max() > 0.01


def test_a_chain_of_velocities_is_that_of_euler():
    process = FlowMatching()
    times = chain.timesteps(process, 20)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[t / 999 for t in times], mu=1.15)
    assert_close(run(process, times), theirs(scheduler, times))


def test_a_chain_may_begin_in_the_middle():
    times = chain.timesteps(DDPM(), 8)
    whole = run(DDPM(), times)
    rest = chain.Chain(toy, DDPM(), times).run(whole[5], 5)
    assert len(rest) == 4
    np.testing.assert_array_equal(rest[-1], whole[-1])


def test_samplers_are_those_of_the_process():
    assert chain.sampler_of(ScaledDDPM()) == "ddim"
    assert chain.sampler_of(DDPM(), "ddpm") == "ddpm"
    assert chain.sampler_of(FlowMatching()) == "euler"
    with pytest.raises(InputError, match="ddpm is not for this model: take euler"):
        chain.sampler_of(FlowMatching(), "ddpm")
    with pytest.raises(InputError, match="has no chain"):
        chain.sampler_of(Residual())
    with pytest.raises(InputError, match="1 to 1000 steps, not 1001"):
        chain.timesteps(DDPM(), 1001)
