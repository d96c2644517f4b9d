"""The loss on detail: against PyTorch, and what it rewards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from conversion.parity.arrays import relative_error, to_nchw
from omgsr_jax.losses.detail import detail
from omgsr_jax.losses.pixel import l1
from tests.helpers import images

_loss = jax.jit(detail)


def _reference(x_p: torch.Tensor, x_h: torch.Tensor) -> torch.Tensor:
    """b 3 h w, in double precision; written down from the definition."""
    floor, found = (2 / 255) ** 2, []
    for number, (p, h) in enumerate(zip(_bands(x_p), _bands(x_h), strict=True)):
        both, own, theirs = (functional.avg_pool2d(x, 16, 8) for x in (p * h, p * p, h * h))
        likeness = (2 * both + floor) / (own + theirs + floor)
        strengths = ((own + floor**2) * (theirs + floor**2)).sqrt()
        contrast = (2 * strengths + floor) / (own + theirs + floor)
        share = 0.1 if number == 1 else 0.0
        found.append((1 - likeness).mean() + share * (1 - contrast).mean())
    return torch.stack(found).mean()


def _bands(x: torch.Tensor) -> list[torch.Tensor]:
    """By Fourier transforms of images beside their mirrors."""
    height, width = x.shape[-2:]
    luma = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    mirrored = torch.cat([luma, luma.flip(-1)], -1)
    spectrum = torch.fft.fft2(torch.cat([mirrored, mirrored.flip(-2)], -2))
    smoothed = [luma]
    for limit in (1 / 4, 1 / 8, 1 / 16):
        rows, columns = (_passed(side, limit) for side in (height, width))
        kept = torch.fft.ifft2(spectrum * rows[:, None] * columns).real
        smoothed.append(kept[..., :height, :width])
    return [smoothed[i] - smoothed[i + 1] for i in range(3)]


def _passed(side: int, limit: float) -> torch.Tensor:
    """1 a quarter of an octave below the limit, 0 a quarter above it, half a cosine between."""
    frequencies = torch.fft.fftfreq(2 * side).abs().double()
    octaves = torch.log2(frequencies.clamp_min(1e-9) / limit)
    return 0.5 - 0.5 * torch.sin(np.pi * (2 * octaves).clamp(-0.5, 0.5))


def test_value_and_gradient_are_those_of_the_definition():
    x_p, x_h = images(1, 2, 48, 64, 3), images(2, 2, 48, 64, 3)
    given = to_nchw(x_p).double().requires_grad_()
    expected = _reference(given, to_nchw(x_h).double())
    expected.backward()
    value, gradient = jax.jit(jax.value_and_grad(detail))(jnp.asarray(x_p), jnp.asarray(x_h))
    assert abs(float(value) - expected.item()) <= 1e-5 * expected.item()
    assert relative_error(gradient, given.grad.permute(0, 2, 3, 1).numpy()) <= 1e-4


@pytest.fixture(scope="module")
def photo():
    """1 h w 3, in [-1, 1], with the spectrum of photographs."""
    return _with_a_photographs_spectrum(0)


def _with_a_photographs_spectrum(seed):
    noise = np.random.default_rng(seed).standard_normal((96, 96))
    v, u = np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96)
    found = np.fft.irfft2(np.fft.rfft2(noise) / (np.hypot(v, u) + 1 / 96))
    return np.repeat((0.3 * found / found.std())[None, ..., None], 3, -1).astype(np.float32)


def test_an_image_and_itself_differ_by_nothing(photo):
    assert abs(float(_loss(photo, photo))) <= 2e-4
    flat = np.zeros_like(photo)
    assert np.isfinite(jax.grad(_loss)(flat, photo)).all()
    assert np.isfinite(jax.grad(_loss)(flat, flat)).all()


def test_what_is_uncertain_is_to_be_as_strong_as_the_original(photo):
    """Of results that are half right L1 prefers weak ones, and this loss those at full strength."""
    right, wrong = photo - photo.mean(), _with_a_photographs_spectrum(1)
    guess = (right + wrong) / np.sqrt(2)
    strengths = (0.5, 0.75, 1.0, 1.5)
    of_detail, of_l1 = ([float(f(s * guess, right)) for s in strengths] for f in (_loss, l1))
    assert np.argmin(of_detail) == 2, of_detail
    assert np.argmin(of_l1) < 2, of_l1


def test_strength_in_the_wrong_place_gains_little(photo):
    """Blur loses detail; as much grain in its place costs no less."""
    around = sum(np.roll(photo, by, axis) for axis in (1, 2) for by in (-1, 1))
    blurred = (photo + around) / 5
    lost = photo - blurred
    shuffled = np.roll(lost, (37, 41), (1, 2))
    assert float(_loss(blurred + shuffled, photo)) > float(_loss(blurred, photo))
    assert float(_loss(blurred + 0.5 * lost, photo)) < 0.6 * float(_loss(blurred, photo))
