"""The published code itself as the other side; `OMGSR_PUBLISHED` names a checkout of it."""

import os
from pathlib import Path

import pytest

from conversion.parity.published import checkout, report, stand_ins
from omgsr_jax.errors import InputError


@pytest.mark.parametrize(
    ("version", "script"), [("v1", "infer_omgsr_s.py"), ("v2", "infer/infer_omgsr_s.py")]
)
def test_a_checkout_is_known_by_its_scripts(version, script, tmp_path):
    with pytest.raises(InputError, match="is not a checkout of"):
        checkout.Checkout.at(tmp_path)
    for path in checkout.SCRIPTS[version].values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("print()")
    found = checkout.Checkout.at(tmp_path)
    assert found.version == version
    assert len(found.digests[script]) == 64


def test_numbers_of_the_published_configs_are_numbers(tmp_path):
    """YAML takes 1e-4 for a text, as omegaconf does not."""
    (tmp_path / "config.yml").write_text("rate: 2e-5\nepsilon: 1e-08\nprompt: '8K'\nsteps: 50\n")
    found = stand_ins.read_config(tmp_path / "config.yml")
    assert found == {"rate": 2e-5, "epsilon": 1e-8, "prompt": "8K", "steps": 50}


@pytest.mark.slow
@pytest.mark.parametrize("part", report.PARTS)
def test_ours_with_quirks_is_the_published_code(part):
    if not (folder := os.environ.get("OMGSR_PUBLISHED")):
        pytest.skip("OMGSR_PUBLISHED names no checkout")
    assert report.compare(Path(folder), [part], steps=6, seed=0)["agree"]
