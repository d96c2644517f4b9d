"""The noise processes against diffusers' schedulers and the published FLUX schedule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from omgsr_jax.process import DDPM, FlowMatching, ScaledDDPM

T = np.array([0, 1, 195, 273, 500, 999])


def _latents(seed):
    return np.random.default_rng(seed).standard_normal((6, 8, 8, 4), np.float32)


@pytest.fixture
def scheduler():
    return DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def test_ddpm_noises_as_diffusers_does(scheduler):
    z0, eps = _latents(0), _latents(1)
    expected = scheduler.add_noise(*map(torch.from_numpy, (z0, eps, T))).numpy()
    np.testing.assert_allclose(DDPM().noised(z0, eps, T), expected, rtol=1e-5, atol=1e-6)


def test_ddpm_prediction_is_the_one_step_formula_of_the_published_code(scheduler):
    z_l, prediction = _latents(0), _latents(1)
    alpha_bar = scheduler.alphas_cumprod[195].numpy()
    expected = (z_l - np.sqrt(1 - alpha_bar) * prediction) / np.sqrt(alpha_bar)
    np.testing.assert_allclose(DDPM().clean(z_l, prediction, 195), expected, rtol=1e-5, atol=1e-6)


def test_flow_sigmas_are_the_published_ones():
    """FLUX's schedule as the published code writes it: linspace(1, 0), shifted, read backwards."""
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (4096 - 256)
    unshifted = torch.linspace(1, 0, 1000)
    published = np.exp(mu) / (np.exp(mu) + (1 / unshifted - 1))
    ours = FlowMatching().sigma(np.arange(1000))
    np.testing.assert_array_equal(ours, published.numpy()[::-1])
    assert abs(float(FlowMatching().sigma(244)) - 0.50511) < 5e-6
    assert float(FlowMatching().sigma(295)) == pytest.approx(float(published[-296]), abs=1e-6)


def test_sigmas_with_one_shift_for_all_sizes_are_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 1000))
    process = FlowMatching(base_shift=math.log(3), max_shift=math.log(3))
    np.testing.assert_array_equal(
        process.sigma(np.arange(1000)), scheduler.sigmas[:-1].numpy()[::-1]
    )


@pytest.mark.parametrize("process", [DDPM(), FlowMatching()], ids=["ddpm", "flow"])
def test_a_perfect_prediction_leads_back_to_the_clean_latent(process):
    z0, eps = _latents(2), _latents(3)
    perfect = process.target(z0, eps)
    t = np.array([1, 50, 195, 273, 500, 900])
    z_t = process.noised(z0, eps, t)
    np.testing.assert_allclose(process.clean(z_t, jnp.asarray(perfect), t), z0, atol=2e-4)


@pytest.mark.parametrize("process", [DDPM(), FlowMatching()], ids=["ddpm", "flow"])
def test_snr_is_signal_power_over_noise_power(process):
    rng = np.random.default_rng(4)
    z0 = rng.standard_normal((1, 256, 256, 4)).astype(np.float32) * 0.8
    for t in (100, 244, 700):
        signal = process.noised(z0, np.zeros_like(z0), t)
        noise = process.noised(np.zeros_like(z0), np.ones_like(z0), t)
        measured = np.mean(np.square(signal)) / np.mean(np.square(noise))
        np.testing.assert_allclose(process.snr(t, np.mean(z0**2)), measured, rtol=1e-4)


def test_noise_only_grows():
    for process in (DDPM(), FlowMatching()):
        snr = np.asarray(process.snr(np.arange(1, 1000), 1.0))
        assert (np.diff(snr) < 0).all()


def test_bf16_predictions_are_combined_in_fp32():
    z = jnp.ones((1, 4, 4, 4), jnp.float32)
    for process in (DDPM(), FlowMatching()):
        assert process.clean(z, jnp.ones_like(z, jnp.bfloat16), 195).dtype == jnp.float32


def test_scaled_ddpm_injects_what_z_t_is_on_average():
    z = _latents(5)
    t = np.array([1, 50, 195, 273, 500, 900])
    nothing = np.zeros_like(z)
    scaled = ScaledDDPM()
    injected = scaled.injected(z, t)
    np.testing.assert_allclose(injected, scaled.noised(z, nothing, t), rtol=1e-6)
    np.testing.assert_allclose(scaled.clean(injected, nothing, t), z, rtol=1e-4, atol=1e-5)
    assert DDPM().injected(z, t) is z


@pytest.mark.parametrize("t", [244, 295])
def test_the_published_time_is_rounded_in_loops_too(t):
    """The compiler leaves out conversions to bf16 and back there, and so it did these."""
    process = FlowMatching().as_published()

    def look(carry, scale):
        return carry, (scale * process.conditioning(t), scale * process.conditioning(t + carry))

    _, times = jax.jit(lambda scales: jax.lax.scan(look, jnp.zeros((), int), scales))(jnp.ones(2))
    bf16 = float(process.sigma(t).astype(jnp.bfloat16) * 1000) / 1000
    np.testing.assert_allclose(times, np.full((2, 2), bf16), rtol=1e-6)
