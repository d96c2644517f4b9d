"""The search for the mid-timestep, where the answer is known, and on photographs."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from conversion.convert import convert
from omgsr_jax import converted, timestep
from omgsr_jax.data import PRESETS, degrade, example_rng, sampled_plan
from omgsr_jax.errors import InputError
from omgsr_jax.models.vae import VAE, VAEConfig
from omgsr_jax.process import DDPM, FlowMatching
from omgsr_jax.weights import variables
from tests.data.photos import TEST_DATA, synthetic_photo
from tests.helpers import drawn

PROCESSES = {"ddpm": DDPM(), "flow": FlowMatching()}
each_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def coefficients(process, t):
    """a and b of z_t = a z_0 + b eps, from the schedules' formulas."""
    if isinstance(process, DDPM):
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        alpha_bar = np.cumprod(1 - betas)[t]
        return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    unshifted = t / 999
    sigma = np.exp(1.15) * unshifted / (1 + (np.exp(1.15) - 1) * unshifted)
    return 1 - sigma, sigma


def latent_pairs(low_of, *, power=1.0, count=12, seed=0):
    """Batches of known latents: white ones, and what `low_of` makes of them with fresh noise."""
    rng = np.random.default_rng(seed)
    for _ in range(count // 4):
        z_h, noise = rng.standard_normal((2, 4, 64, 64, 4)).astype("f4")
        z_h = np.sqrt(power, dtype="f4") * z_h
        yield low_of(z_h, noise).astype("f4"), z_h


def find(process, low_of, **options):
    """The synthetic model: its 'images' are latents already."""
    return timestep.search(lambda z: z, process, latent_pairs(low_of, **options))


@each_process
@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("t", [60, 244, 600])
def test_snr_finds_the_timestep_of_latent_noise_of_known_power(process, power, t):
    a, b = coefficients(process, t)
    found = find(process, lambda z_h, noise: z_h + b / a * noise, power=power).optima["snr"]
    assert abs(found.timestep - t) <= 2


@each_process
@pytest.mark.parametrize("t", [60, 244, 600])
def test_august_finds_the_timestep_of_latents_that_are_z_t(process, t):
    a, b = coefficients(process, t)
    optima = find(process, lambda z_h, noise: a * z_h + b * noise).optima
    assert abs(optima["august"].timestep - t) <= 2
    # The SNR criterion takes the shrinking for noise too. Its answer is where b'/a' is as large.
    error = (1 - a) ** 2 + b**2
    a_all, b_all = coefficients(process, np.arange(1, 1000))
    expected = 1 + np.abs((a_all / b_all) ** 2 - 1 / error).argmin()
    assert abs(optima["snr"].timestep - expected) <= 2


def test_eq9_as_printed_has_its_minimum_at_no_noise_for_ddpm():
    """Unless z_H has power beyond 1 that z_L lacks: here the minimum is at a = c / (p - 1)."""
    a, b = coefficients(DDPM(), 244)
    as_z_t = find(DDPM(), lambda z_h, noise: a * z_h + b * noise).optima["eq9"]
    assert as_z_t.timestep == 0
    assert as_z_t.error == 0
    power, kept = 6.0, 0.5
    found = find(DDPM(), lambda z_h, _: kept * z_h, power=power).optima["eq9"]
    a_all, _ = coefficients(DDPM(), np.arange(1000))
    expected = np.abs(a_all - kept * power / (power - 1)).argmin()
    assert expected > 100
    assert abs(found.timestep - expected) <= 5


@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_eq9_as_printed_has_its_minimum_at_a_small_sigma_for_flow_matching(kept):
    found = find(FlowMatching(), lambda z_h, noise: kept * z_h + 0.5 * noise).optima["eq9"]
    expected = (1 - kept) / 2  # (power - shared) / (power + 1)
    assert float(FlowMatching().sigma(found.timestep)) == pytest.approx(expected, abs=0.01)


@each_process
@pytest.mark.parametrize("name", timestep.CRITERIA)
def test_curves_are_the_means_over_drawn_noise(process, name):
    """The published computation: draw eps, form z_t, take the means, at every timestep asked."""
    rng = np.random.default_rng(3)
    z_h = rng.standard_normal((1, 256, 256, 4)) * 0.9
    z_l = 0.8 * z_h + 0.6 * rng.standard_normal(z_h.shape)
    eps = rng.standard_normal(z_h.shape)
    found = timestep.search(lambda z: jnp.asarray(z, jnp.float32), process, [(z_l, z_h)])
    for t in (20, 195, 500, 900):
        a, b = coefficients(process, t)
        z_t = a * z_h + b * eps
        error = np.mean((z_l - z_h) ** 2)
        expected = {
            "eq9": np.mean((z_l - z_t) ** 2),
            "august": abs(np.mean((z_t - z_h) ** 2) - error),
            "snr": abs(np.mean((a * z_h) ** 2) / np.mean((b * eps) ** 2) - np.mean(z_h**2) / error),
        }[name]
        # 262144 draws: their means are known to about 0.3%, of the parts, not of the difference.
        scale = 1 + (a / b) ** 2 if name == "snr" else 1
        assert abs(found.optima[name].curve[t] - expected) < 0.01 * scale


def test_standard_error_is_the_spread_over_other_images_of_the_kind():
    def low_of(z_h, noise):  # each image has its own power of noise
        sigma = np.random.default_rng(int(1e6 * abs(z_h[0, 0, 0, 0]))).uniform(
            0.5, 1.5, (4, 1, 1, 1)
        )
        return z_h + sigma * noise

    found = [find(DDPM(), low_of, count=24, seed=seed).optima["snr"] for seed in range(12)]
    spread = np.std([optimum.timestep for optimum in found], ddof=1)
    claimed = np.mean([optimum.error for optimum in found])
    assert 0.5 < claimed / spread < 2  # 12 draws tell a standard deviation to about 20%


def test_images_count_once_whatever_the_batches():
    pairs = [(z_l[i], z_h[i]) for z_l, z_h in latent_pairs(lambda z, n: z + n) for i in range(4)]
    whole = [tuple(np.stack(side) for side in zip(*pairs, strict=True))]
    single = [(z_l[None], z_h[None]) for z_l, z_h in pairs]
    a, b = (timestep.search(lambda z: z, DDPM(), batches) for batches in (whole, single))
    assert a.images == b.images == 12
    np.testing.assert_allclose(a.optima["snr"].curve, b.optima["snr"].curve, rtol=1e-5)
    assert a.optima["snr"].error == b.optima["snr"].error


def test_more_images_than_fit_in_one_chunk():
    rng = np.random.default_rng(0)
    z_h = rng.standard_normal((700, 8, 8, 4)).astype("f4")
    z_l = z_h + rng.standard_normal(z_h.shape).astype("f4")
    found = timestep.search(lambda z: z, DDPM(), [(z_l, z_h)])
    error = np.square(z_l - z_h).mean((1, 2, 3))
    assert found.optima["august"].curve[0] == pytest.approx(
        np.mean(np.abs(error - 0.00085 - (1 - np.sqrt(1 - 0.00085)) ** 2)), rel=1e-4
    )


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(InputError, match="no images"):
        timestep.search(lambda z: z, DDPM(), [])
    same = np.ones((2, 8, 8, 4), "f4")
    with pytest.raises(InputError, match="2 of 2 pairs have the same latents on both sides"):
        timestep.search(lambda z: z, DDPM(), [(same, same)])
    with pytest.raises(InputError, match="not finite"):
        timestep.search(lambda z: z, DDPM(), [(same * np.nan, same)])


@pytest.mark.parametrize("count", [4, 12, 76])
def test_the_snr_is_undefined_where_there_is_no_noise(count):
    rng = np.random.default_rng(0)
    z_h, noise = rng.standard_normal((2, count, 8, 8, 4)).astype("f4")
    curve = timestep.search(lambda z: z, FlowMatching(), [(z_h + noise, z_h)]).optima["snr"].curve
    assert np.isinf(curve[0])
    assert np.isfinite(curve[1:]).all()


def test_results_are_written(tmp_path):
    found = find(FlowMatching(), lambda z_h, noise: z_h + noise)
    timestep.write(found, tmp_path / "out", chosen="snr")
    content = json.loads((tmp_path / "out" / "timestep.json").read_text())
    assert content["chosen"] == "snr"
    assert content["optima"]["snr"]["timestep"] == found.optima["snr"].timestep
    assert content["optima"]["snr"]["curve"][0] is None  # no noise at t = 0: infinite SNR
    picture = ElementTree.parse(tmp_path / "out" / "timestep.svg").getroot()
    labels = " ".join(text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text"))
    for optimum in found.optima.values():
        assert f"t = {optimum.timestep}" in labels
    lines = list(picture.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 3
    assert not any("nan" in line.get("points") or "inf" in line.get("points") for line in lines)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"timestep.json", "timestep.svg"}


def test_the_vae_alone_is_read_without_its_adapter(tiny_base, tiny_model, tmp_path):
    convert(str(tiny_base), tmp_path / "base")
    base = variables(converted.read(tmp_path / "base").vae)
    alone = variables(converted.read_vae(tiny_model))
    assert set(alone) == set(base)
    for name, leaf in alone.items():
        np.testing.assert_array_equal(leaf[...], base[name][...])


def tiny_encoder(photos):
    """A random VAE's latents, scaled to unit power on `photos` as the published VAEs' are."""
    config = VAEConfig(
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    )
    encode = timestep.encoder(drawn(VAE(config, rngs=None)))
    power = np.mean([np.square(encode(np.float32(photo)[None] / 127.5 - 1)) for photo in photos])
    return lambda images: encode(images) / np.sqrt(power)


def degraded(photos, seed=0):
    for index, hr in enumerate(photos):
        plan = sampled_plan(PRESETS[512], example_rng(seed, 0, index))
        yield tuple(np.float32(x)[None] / 127.5 - 1 for x in (degrade(hr, plan, 4), hr))


def test_photographs_through_a_tiny_vae():
    photos = [synthetic_photo(128, 128, seed) for seed in range(6)]
    encode = tiny_encoder(photos)
    found = {
        name: timestep.search(encode, process, degraded(photos))
        for name, process in PROCESSES.items()
    }
    for result in found.values():
        eq9, august, snr = (result.optima[name].timestep for name in ("eq9", "august", "snr"))
        assert eq9 < august < 999
        assert eq9 < snr < 999
    means = found["flow"].moments
    assert means["power"] == pytest.approx(1, rel=1e-3)
    assert found["ddpm"].optima["eq9"].timestep == 0
    sigma = float(FlowMatching().sigma(found["flow"].optima["eq9"].timestep))
    assert sigma == pytest.approx(-means["cross"] / (means["power"] + 1), abs=0.002)


@pytest.mark.slow  # encodes 55 photographs of 512 px, twice
def test_the_criteria_on_real_photographs(tmp_path):
    """Prints the table of docs/timestep.md and draws its pictures."""
    paths = sorted((TEST_DATA / "kodak24").glob("*.png"))
    paths += sorted((TEST_DATA / "train_cc0").glob("*.webp"))
    photos = [photo for path in paths if min((photo := centre_512(path)).shape[:2]) == 512]
    if not photos:
        pytest.skip(f"no kodak24 and train_cc0 in {TEST_DATA}; set OMGSR_TEST_DATA")
    encode = tiny_encoder(photos[::6])
    for name, process in PROCESSES.items():
        found = timestep.search(encode, process, degraded(photos))
        timestep.write(found, tmp_path / name, chosen="snr")
        print(f"\n{name}, {found.images} images, {found.moments}, written to {tmp_path / name}")
        for criterion, optimum in found.optima.items():
            print(f"  {criterion}: {optimum.timestep} ± {optimum.error:.1f}")
        assert found.optima["eq9"].timestep < found.optima["august"].timestep
        assert found.optima["eq9"].timestep < found.optima["snr"].timestep


def centre_512(path: Path) -> np.ndarray:
    """Less where the photograph is smaller."""
    image = np.asarray(Image.open(path).convert("RGB"))
    top, left = (max(side - 512, 0) // 2 for side in image.shape[:2])
    return image[top : top + 512, left : left + 512]
