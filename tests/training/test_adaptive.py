"""A mid-timestep for each image: what chooses it, how it is trained, and what is written of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

import omgsr_jax
from conversion.export import export
from omgsr_jax import architectures, converted
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference.export import FUNCTION, WEIGHTS, write
from omgsr_jax.models.timestep_head import TimestepHeadConfig
from omgsr_jax.process import DDPM, FlowMatching, log_noise, timestep_of
from omgsr_jax.timestep import optimum
from omgsr_jax.training.run import Run
from omgsr_jax.weights import fill
from tests.inference.conftest import photo
from tests.training.runs import batches, random_base, smallest

_DEVICE = jax.devices()[:1]
_STEPS = 200
_LOSSES = {"ldr": 5, "mse": 2, "features": 0, "gan": 0}  # what compiles soonest


@pytest.mark.parametrize("process", [DDPM(), FlowMatching()])
def test_an_error_leads_to_the_timestep_of_the_snr_criterion(process):
    rng = np.random.default_rng(0)
    z_h = rng.standard_normal((6, 8, 8, 4)).astype(np.float32)
    deviations = np.linspace(0.2, 1.5, 6, dtype=np.float32)[:, None, None, None]
    z_l = z_h + deviations * rng.standard_normal(z_h.shape).astype(np.float32)
    errors = np.square(z_l - z_h).mean((1, 2, 3))
    found = timestep_of(process, jnp.log(errors))
    for i, t in enumerate(found):
        pair = [(z_l[i : i + 1], z_h[i : i + 1])]
        assert t == optimum.search(jnp.asarray, process, pair).optima["snr"].timestep
    for t in (1, 195, 998):
        assert timestep_of(process, log_noise(process, jnp.array([t])))[0] == t


def test_a_new_head_leaves_the_generator_as_it_is():
    fixed = architectures.named("smallest")
    adaptive = dataclasses.replace(fixed, adaptive=TimestepHeadConfig())
    one, other = (OMGSR(config, rngs=nnx.Rngs(0)) for config in (fixed, adaptive))
    z_l = jax.random.normal(jax.random.key(1), (2, 4, 4, fixed.vae.latent_channels))
    np.testing.assert_array_equal(other.mid_timestep(z_l), [fixed.mid_timestep] * 2)
    np.testing.assert_allclose(other.one_step(z_l), one.one_step(z_l), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def trained():
    """A run before and after it has learned how far its two kinds of images are from their
    originals, and its terms."""
    rate = {"learning_rate": 1e-2}
    changes = {"model": {"adaptive": True}, "data": {"accumulation": 2}}
    run = Run.of(smallest(**changes, losses=_LOSSES, optimizer=rate), _DEVICE)
    (batch,) = batches(1)
    # Half of the images have lost little, half have lost all.
    near = batch["hr"] + 0.02 * np.sign(batch["lr"])
    batch["lr"] = np.where(np.arange(8)[:, None, None, None] < 4, near, batch["lr"])
    compiled = run.lower(batch).compile({"xla_backend_optimization_level": 0})
    frozen, now, terms = run.frozen(), run.start(), []
    start = jax.device_get(now)
    for _ in range(_STEPS):
        now, metrics = compiled(now, frozen, jax.device_put(batch))
        terms.append(float(metrics["timestep"]))
    return run, batch, start, jax.device_get(now), terms


def test_the_head_learns_how_far_each_image_is_from_its_original(trained):
    run, batch, start, end, terms = trained
    heads = {name for name in start.generator if name.startswith("timestep_head.")}
    assert len(heads) == 4
    assert not start.generator["timestep_head.out.kernel"].any()  # so it begins at t_m
    assert not heads & set(run.frozen())
    assert terms[-1] < 0.2 * terms[0]
    model = fill(run.blueprint.generator, run.frozen() | end.generator)
    predicted = np.asarray(model.timestep_head(model.encode(batch["lr"])))
    # These random latents are so small that the head sees little of them.
    assert predicted[:4].mean() < predicted[4:].mean() - 0.05


def test_what_is_written_chooses_as_the_run_did(trained, tmp_path):
    run, batch, _, end, _ = trained
    out = str(tmp_path / "model")
    run.write_model(out, end.generator)
    card = converted.read_card(out)
    assert card.generator.adaptive == TimestepHeadConfig()
    assert "| mid-timestep t_m | adaptive |" in (tmp_path / "model" / "README.md").read_text()
    model = converted.read(out)
    theirs = fill(run.blueprint.generator, run.frozen() | end.generator)
    z_l = theirs.encode(batch["lr"])
    np.testing.assert_array_equal(model.mid_timestep(z_l), theirs.mid_timestep(z_l))
    with pytest.raises(InputError, match="chooses a mid-timestep for each image"):
        export(out, tmp_path / "exported")
    with pytest.raises(InputError, match="chooses a mid-timestep for each image"):
        converted.set_mid_timestep(out, 100)
    again = Run.of(smallest(model={"path": out, "architecture": ""}), _DEVICE)
    assert again.blueprint.generator_config.adaptive
    np.testing.assert_array_equal(
        again.start().generator["timestep_head.out.kernel"],
        end.generator["timestep_head.out.kernel"],
    )
    fixed = smallest(model={"path": out, "architecture": "", "mid_timestep": 100})
    assert Run.of(fixed, _DEVICE).blueprint.generator_config.adaptive is None
    upscaler = omgsr_jax.load(out)
    assert "t_m adaptive of" in str(upscaler)
    assert upscaler.upscale(np.zeros((9, 7, 3), np.uint8)).size == (28, 36)


def test_what_is_exported_has_the_head_inside(trained, tmp_path):
    run, _, _, end, _ = trained
    run.write_model(str(tmp_path / "model"), end.generator)
    model, image, out = omgsr_jax.load(tmp_path / "model"), photo(8, 8), tmp_path / "exported"
    write(model, out, size=(8, 8), scale=4, platforms=("cpu",), name="adaptive")
    function = jax.export.deserialize(bytearray((out / FUNCTION).read_bytes()))
    weights = load_file(out / WEIGHTS)
    assert any(name.startswith("timestep_head.") for name in weights)
    np.testing.assert_array_equal(function.call(weights, image[None])[0], model.upscale(image))


def test_a_base_without_a_head_gets_one_whoever_judges(tmp_path):
    random_base(tmp_path / "base", architectures.named("smallest"), 16)
    latents = {
        "backbone": "latents", "heads": "unet", "levels": (0,), "width": 4, "image_size": None,
        "relativistic": True,
    }  # fmt: skip
    for judge in ({}, latents):
        model = {"path": str(tmp_path / "base"), "architecture": "", "adaptive": True}
        config = smallest(model=model, discriminator=judge, data={"resolution": 64})
        run = Run.of(config, _DEVICE)
        assert set(run.frozen()) == set(run.layout.frozen)
        assert "timestep_head.out.kernel" in run.start().generator


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"architecture": "smallest-flux", "mid_timestep": 0}, "where there is no noise"),
        ({"architecture": "smallest-flux", "mid_timestep": 999}, "where there is no noise"),
    ],
)
def test_a_head_begins_where_there_is_signal_and_noise(model, said):
    with pytest.raises(InputError, match=said):
        Run.of(smallest(model={**model, "adaptive": True}), _DEVICE)


def test_a_card_from_before_there_were_heads_has_none(tmp_path):
    random_base(tmp_path / "model", architectures.named("smallest"), 32)
    path = tmp_path / "model" / "omgsr.json"
    content = json.loads(path.read_text())
    del content["generator"]["adaptive"], content["files"]
    path.write_text(json.dumps(content))
    assert converted.read_card(tmp_path / "model").generator.adaptive is None


@pytest.mark.slow
def test_timesteps_are_sampled_around_the_heads():
    """With a spread of 0 an untrained head is the fixed model; with one of 20 it is not."""
    losses = {}
    for name, model in {
        "fixed": {},
        "none": {"adaptive": True, "timestep_spread": 0},
        "some": {"adaptive": True, "timestep_spread": 20},
    }.items():
        run = Run.of(smallest(model=model, losses=_LOSSES), _DEVICE)
        (batch,) = batches(1)
        compiled = run.lower(batch).compile({"xla_backend_optimization_level": 0})
        _, metrics = compiled(run.start(), run.frozen(), jax.device_put(batch))
        losses[name] = {term: float(metrics[term]) for term in ("ldr", "mse")}
    assert losses["none"] == pytest.approx(losses["fixed"], rel=1e-5)
    assert losses["some"]["ldr"] != pytest.approx(losses["fixed"]["ldr"], rel=1e-3)
