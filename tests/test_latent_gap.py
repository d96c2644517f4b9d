"""The gap of a chain's latents, where it is known; and scripts/latent_gap.py on a small model."""

import json
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from omgsr_jax import architectures, chain, converted
from omgsr_jax.errors import InputError
from omgsr_jax.models.lora import LoRASpec
from omgsr_jax.process import DDPM, FlowMatching
from omgsr_jax.timestep import gap
from omgsr_jax.weights import variables
from tests.evaluation.images import photograph, save
from tests.stand_in import write_stand_in

SCRIPT = Path(__file__).parents[1] / "scripts" / "latent_gap.py"
Z_0, EPS, OTHER = (
    jnp.asarray(np.random.default_rng(seed).standard_normal((2, 8, 8, 4)), jnp.float32)
    for seed in range(3)
)


def perfect(process):
    """The chain of a network that was trained on one latent, Z_0, and knows all of it."""

    def predict(z, t):
        one, none = jnp.ones(()), jnp.zeros(())
        noise = (z - process.noised(one, none, t) * Z_0) / process.noised(none, one, t)
        return noise - Z_0 if isinstance(process, FlowMatching) else noise

    return chain.Chain(predict, process, chain.timesteps(process, 10))


@pytest.mark.parametrize("process", [DDPM(), FlowMatching()], ids=["ddpm", "flow"])
def test_eq_5_and_6_hold_for_a_perfect_network(process):
    steps = perfect(process)
    start = process.noised(Z_0, EPS, steps.timesteps[0])
    eps = gap.from_images(steps, OTHER, Z_0, EPS, t_m=300)
    entered = next(way for name, way in eps.items() if name.startswith("z_t"))
    assert entered.gaps.max() < 1e-4
    np.testing.assert_allclose(steps.run(start)[-1], Z_0, atol=1e-3)


def test_added_noise_is_the_gap_where_it_is_added():
    steps = perfect(DDPM())
    plain = gap.undisturbed(steps, EPS)
    assert plain.gaps.shape == (2, 11)
    assert plain.gaps[:, -1].max() == 0  # z_0 is where the chain ends
    weak, strong = gap.disturbed(steps, plain, EPS, OTHER, left=8, levels=(0.1, 0.5))
    assert weak.first == strong.first == 2
    added = np.square(OTHER).mean((1, 2, 3))
    for way, level in ((weak, 0.1), (strong, 0.5)):
        more = way.gaps[:, 0] - plain.gaps[:, 2]
        np.testing.assert_allclose(more, level**2 * added, rtol=0.1)
    assert (strong.gaps[:, 1] > weak.gaps[:, 1]).all()


def test_an_image_enters_as_the_process_takes_it():
    steps = perfect(DDPM())
    ways = gap.from_images(steps, OTHER, Z_0, EPS, t_m=330)
    assert list(ways) == ["z_L at 999", "z_L at 299", "z_t at 299"]
    assert [way.first for way in ways.values()] == [0, 7, 7]
    np.testing.assert_array_equal(ways["z_L at 299"].latents[0], OTHER)
    z_t = DDPM().noised(Z_0, EPS, 999)
    expected = np.square(OTHER - z_t).mean((1, 2, 3))
    np.testing.assert_allclose(ways["z_L at 999"].gaps[:, 0], expected, rtol=1e-5)


def test_as_many_steps_can_be_left_as_there_are():
    assert gap.number_of(range(20), 16) == 4
    with pytest.raises(InputError, match="1 to 20 can be left, not 21"):
        gap.number_of(range(20), 21)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gap") / "adapted"
    spec = LoRASpec(rank=2, alpha=2, targets=("conv1", "to_q"))
    return write_stand_in(
        folder, process_size=64, adapters=spec, parts=architectures.named("smallest")
    )


def test_the_base_is_what_is_below_the_adapters(adapted):
    whole = converted.by_name_on_host(adapted)
    base = {name: leaf[...] for name, leaf in variables(converted.read_base(adapted)).items()}
    assert whole.keys() - base.keys() == {name for name in whole if ".lora_" in name}
    for name, values in base.items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gap") / "pairs"
    hr = {f"{i}.png": photograph(i, 48, 40) for i in range(3)}
    save(folder / "test_HR", hr)
    small = {
        name: np.asarray(Image.fromarray(image).resize((10, 12))) for name, image in hr.items()
    }
    save(folder / "test_LR", small)
    return folder


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, argv)])
    return runpy.run_path(str(SCRIPT))["main"]()


def test_one_command_makes_figures_and_json(adapted, pairs, tmp_path, monkeypatch, capsys):
    argv = ["--model", adapted, "--data", pairs, "--out", tmp_path / "out", "--resolution", 33]
    argv += ["--steps", 5, "--left", 4, "--images", 2, "--sampler", "ddpm"]
    assert run(monkeypatch, *argv) == 0
    report = json.loads((tmp_path / "out" / "gap.json").read_text())
    assert report["adapters"] == "left out"
    assert (report["images"], report["pixels"]) == (2, 32)
    assert report["timesteps"] == [999, 799, 599, 399, 199]
    added, entered = report["gaps"]["noise added"], report["gaps"]["an image enters"]
    assert added["none"]["step"] == [0, 1, 2, 3, 4, 5]
    assert added["none"]["mean"][-1] == 0
    assert added["none"]["power_at_the_end"] > 0
    assert added["noise of 0.8"]["step"] == [1, 2, 3, 4, 5]
    assert added["noise of 0.8"]["mean"][0] > added["noise of 0.1"]["mean"][0]
    assert [curve["step"][0] for curve in entered.values()] == [0, 3, 3]
    assert set(report["search"]) == {"moments", "eq9", "august", "snr"}

    picture = ElementTree.parse(tmp_path / "out" / "gap.svg").getroot()
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == 5 + 3 + 1
    for name, panels in (("steps.webp", 6), ("results.webp", 10)):
        width, height = Image.open(tmp_path / "out" / name).size
        assert width >= 32 * min(panels, 5)
        assert height > 32
    assert "noise of 0.8: " in capsys.readouterr().out


def test_noise_of_an_image_does_not_depend_on_its_batch():
    noise = runpy.run_path(str(SCRIPT))["Noise"]
    together, alone = noise(0, [4, 5], (2, 3, 3, 1)), noise(0, [5], (1, 3, 3, 1))
    np.testing.assert_array_equal(together(1)[1], alone(1)[0])
    assert np.abs(np.asarray(together(1)[0] - together(1)[1])).max() > 0.1
    assert np.abs(np.asarray(alone(0) - alone(1))).max() > 0.1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data", "nowhere"], "nowhere is no set of pairs"),
        (["--left", 21], "1 to 20 can be left, not 21"),
        (["--resolution", 64], "is smaller than 64 px"),
        (["--sampler", "euler"], "euler is not for this model: take ddim or ddpm"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence(
    adapted, pairs, tmp_path, monkeypatch, capsys, argv, message
):
    given = ["--model", adapted, "--data", pairs, "--out", tmp_path / "out", *argv]
    assert run(monkeypatch, *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
