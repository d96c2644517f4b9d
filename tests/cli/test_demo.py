"""`omgsr demo`: what it writes and prints, without a network."""

import socket

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import assets, cli, evaluation
from tests.stand_in import write_stand_in


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory, compile_cache):
    return write_stand_in(tmp_path_factory.mktemp("demo") / "nano")


@pytest.fixture(autouse=True)
def nano(stand_in, tmp_path, monkeypatch):
    """The stand-in, in an empty folder, without a network."""
    monkeypatch.setitem(assets.MODELS, "nano", stand_in)
    monkeypatch.delenv("OMGSR_NIQE_PARAMS", raising=False)
    monkeypatch.chdir(tmp_path)

    def refuse(*_):
        raise AssertionError("the demo asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_the_demo_writes_and_prints_what_it_says(tmp_path, capsys):
    assert cli.main(["demo"]) == 0
    printed = capsys.readouterr()
    files = sorted((tmp_path / "omgsr-demo").iterdir())
    assert [file.stem for file in files] == [
        "coffee-comparison",
        "coffee-input",
        "coffee-restored",
    ]
    for file in files:
        assert f"{file.relative_to(tmp_path)}  " in printed.out
    comparison, source, restored = (np.asarray(Image.open(file)) for file in files)
    pair = assets.sample("coffee")
    np.testing.assert_array_equal(source, np.asarray(Image.open(pair.lr)))
    original = np.asarray(Image.open(pair.hr).convert("RGB"))
    panels = [comparison[-400:, i * 408 : i * 408 + 400] for i in range(3)]
    assert comparison.shape[1] == 3 * 408 - 8
    assert (comparison[:-400] < 128).any()  # labels
    # Within a level, as ties may be rounded either way.
    np.testing.assert_allclose(panels[0], _bicubic(source), rtol=0, atol=1)
    np.testing.assert_array_equal(panels[1], restored)
    np.testing.assert_array_equal(panels[2], original)

    assert printed.err == ""  # no terminal
    assert "s of it compiling" in printed.out
    assert "omgsr upscale your.jpg -o out.png" in printed.out
    psnr = [10 * np.log10(255**2 / _luma_mse(image, original)) for image in (panels[0], restored)]
    assert f"PSNR    {psnr[0]:9.2f}{psnr[1]:9.2f}" in printed.out
    assert "SSIM " in printed.out
    assert "NIQE" not in printed.out


@pytest.mark.slow
def test_niqe_is_scored_where_its_parameters_are(tmp_path, monkeypatch, capsys):
    """With parameters of the right form, which are not those of photographs."""
    path = tmp_path / "pristine.npz"
    mean, cov = np.linspace(0.1, 3, 36), np.diag(np.linspace(0.01, 1, 36))
    np.savez(path, mu_pris_param=mean[None], cov_pris_param=cov)
    monkeypatch.setenv("OMGSR_NIQE_PARAMS", str(path))
    assert cli.main(["demo", "--sample", "chelsea"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("NIQE"))
    restored = np.asarray(Image.open("omgsr-demo/chelsea-restored.png"))
    ready = evaluation.METRICS[5].prepare(evaluation.Settings(niqe_params=path))
    assert line.split()[2] == f"{ready(restored[None], None)[0]:.4f}"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    assert cli.main(["demo", "-o", "taken", "--sample", "chelsea"]) == 1
    assert "omgsr demo: taken" in capsys.readouterr().err


def test_an_unknown_sample_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--sample", "lena"])
    assert stop.value.code == 2
    assert "coffee" in capsys.readouterr().err


def _bicubic(source: np.ndarray) -> np.ndarray:
    """Four times as large by Pillow, without its rounding to 8 bits between columns and rows."""
    size = (4 * source.shape[1], 4 * source.shape[0])
    planes = (Image.fromarray(source[..., i].astype(np.float32)) for i in range(3))
    enlarged = np.stack([plane.resize(size, Image.Resampling.BICUBIC) for plane in planes], -1)
    return np.round(enlarged.clip(0, 255))


def _luma_mse(image: np.ndarray, original: np.ndarray) -> float:
    difference = (image.astype(float) - original) @ np.array([65.481, 128.553, 24.966]) / 255
    return float(np.mean(difference**2))
