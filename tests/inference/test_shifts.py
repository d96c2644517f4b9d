"""Predictions of shifted latents, averaged against the lattice of transformers."""

import jax
import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import Upscaler, architectures, cli
from omgsr_jax.errors import InputError
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference.options import require_shifts
from tests.helpers import drawn, relative_error
from tests.inference.conftest import photo, restored


def test_a_result_is_the_mean_over_latents_that_lie_elsewhere_in_the_patches():
    config = architectures.named("smallest-flux")
    model = drawn(OMGSR(config, rngs=None))
    x_l = photo(16, 16)[None].astype(np.float32) / 127.5 - 1
    z_l = np.asarray(jax.jit(model.encode)(x_l))
    mirrored = np.pad(z_l, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="symmetric")
    one_step = jax.jit(model.one_step)
    z_p = [
        np.asarray(one_step(mirrored[:, 2 - by : 12 - by, 2 - by : 12 - by]))[
            :, by : by + 8, by : by + 8
        ]
        for by in (0, 1)
    ]
    expected = jax.jit(model.decode)(np.mean(z_p, axis=0))

    found = restored(Upscaler(model, 16, color="none", shifts=2), x_l)
    assert relative_error(found, expected) <= 1e-5
    assert relative_error(z_p[0], z_p[1]) > 1e-3


@pytest.mark.parametrize(
    ("shifts", "patch", "message"),
    [
        (5, 2, r"shifts must be within 1 \.\. 4, the places in a patch of 2 x 2 latents, not 5"),
        (0, 2, "shifts must be within 1"),
        (2, 1, "takes them one by one: .*instead of 2"),
    ],
)
def test_shifts_that_a_patch_does_not_have_are_refused(shifts, patch, message):
    with pytest.raises(InputError, match=message):
        require_shifts(shifts, patch)


def test_a_unet_is_refused_before_its_weights_are_read(model_64, monkeypatch):
    monkeypatch.setattr(omgsr_jax.converted, "read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match="one by one"):
        omgsr_jax.load(model_64, shifts=2)


@pytest.mark.parametrize("command", ["upscale", "compare"])
def test_commands_hand_shifts_on(model_64, tmp_path, capsys, command):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    named = {"upscale": ("--model", "b.png"), "compare": ("--models", "b.html")}[command]
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / named[1]), named[0], str(model_64)]
    assert cli.main([command, *arguments, "--shifts", "2"]) == 1
    assert "one by one" in capsys.readouterr().err
