"""The whole: folders in, scores, statistics and reports out."""

import csv
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import evaluation
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation import PairError, Settings, fidelity
from tests.evaluation.images import photograph, save

QUICK = ["psnr", "ssim"]


def noisy(image, sigma, seed):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten references, their inputs, and two sets of outputs, `good` closer to them than `bad`."""
    root = tmp_path_factory.mktemp("benchmark")
    hr = {f"{i:02}.png": photograph(i, 64, 80) for i in range(10)}
    lr = {
        name: np.asarray(Image.fromarray(image).resize((20, 16), Image.Resampling.BICUBIC))
        for name, image in hr.items()
    }
    good = {name: noisy(image, 4, i) for i, (name, image) in enumerate(hr.items())}
    bad = {name: noisy(image, 8, i) for i, (name, image) in enumerate(hr.items())}
    sets = {"hr": hr, "lr": lr, "good": good, "bad": bad}
    return SimpleNamespace(**{name: save(root / name, images) for name, images in sets.items()})


@pytest.fixture(scope="module")
def result(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    found = evaluation.run(
        [folders.good, folders.bad], folders.hr, folders.lr, out=out, metrics=[*QUICK, "niqe"]
    )
    return found, out


def test_scores_are_those_of_the_metric_by_image(folders, result):
    system = result[0].systems[0]
    assert system.name == "good"
    assert system.images == [f"{i:02}" for i in range(10)]
    for row in (0, 9):
        sr, hr = (
            np.asarray(Image.open(folder / f"{row:02}.png"))[None]
            for folder in (folders.good, folders.hr)
        )
        np.testing.assert_allclose(system.scores["psnr"][row], fidelity.psnr(sr, hr)[0], rtol=1e-5)


def test_the_better_system_is_significantly_better(result):
    differences = {row.metric: row for row in result[0].differences()}
    assert set(differences) == set(QUICK)
    psnr = differences["psnr"]
    assert (psnr.a, psnr.b) == ("good", "bad")
    assert psnr.low < psnr.value < psnr.high
    assert psnr.low > 4
    assert psnr.significant


def test_csv_has_a_line_for_each_system_and_image(result):
    found, out = result
    with (out / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert list(rows[0]) == ["system", "image", "psnr", "ssim"]
    assert float(rows[10]["psnr"]) == pytest.approx(found.systems[1].scores["psnr"][0], abs=1e-6)


def test_json_has_means_with_intervals_and_says_what_did_not_run(result):
    summary = json.loads((result[1] / "summary.json").read_text())
    psnr = summary["systems"]["good"]["metrics"]["psnr"]
    assert psnr["low"] < psnr["value"] < psnr["high"]
    assert psnr["count"] == 10
    assert (
        "at least 96x192 pixels; 20 of 20 are smaller, such as 00 (80x64)"
        in (summary["not_run"]["niqe"])
    )


def test_markdown_shows_the_metric_that_did_not_run(result):
    text = (result[1] / "summary.md").read_text()
    assert "| | PSNR ↑ | SSIM ↑ | NIQE ↓ |" in text
    assert "| not run |" in text
    assert "good - bad | PSNR ↑ | **+" in text


def test_no_temporary_file_is_left(result):
    names = {path.name for path in result[1].iterdir()}
    assert names == {"images.csv", "summary.json", "summary.md", "report.html"}


def test_a_stream_is_scored_like_folders(folders, result):
    """The seam for scoring a model's outputs without writing them."""
    files = evaluation.find_pairs(folders.good, folders.hr)
    ready, _ = evaluation.prepare(QUICK, Settings(), [files])
    system, reference = evaluation.score("model", (pair.read() for pair in files), ready)
    assert reference is None  # no FID, no features of the references
    np.testing.assert_array_equal(system.scores["ssim"], result[0].systems[0].scores["ssim"])


def test_a_stream_that_gives_nothing_or_the_wrong_size_is_an_error():
    with pytest.raises(PairError, match="no images"):
        evaluation.score("model", iter(()), {})
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 24, 3), np.uint8)
    with pytest.raises(PairError, match="x: the output is 8x8, the reference 24x16"):
        evaluation.score("model", [evaluation.Pair("x", small, large)], {})
    with pytest.raises(InputError, match="at least one folder"):
        evaluation.run({}, "hr")


def test_images_of_different_sizes_are_scored_in_one_run(tmp_path):
    hr = {
        "a.png": photograph(1, 40, 48),
        "b.png": photograph(2, 48, 40),
        "c.png": photograph(3, 40, 48),
    }
    sr = {name: noisy(image, 5, 1) for name, image in hr.items()}
    found = evaluation.run(save(tmp_path / "sr", sr), save(tmp_path / "hr", hr), metrics=QUICK)
    expected = [fidelity.psnr(sr[n][None], hr[n][None])[0] for n in ("a.png", "b.png", "c.png")]
    assert found.systems[0].images == ["a", "b", "c"]
    np.testing.assert_allclose(found.systems[0].scores["psnr"], expected, rtol=1e-5)


def test_folders_of_one_name_are_told_apart(folders, tmp_path):
    other = save(tmp_path / "good", {"00.png": photograph(0, 64, 80)})
    found = evaluation.run([folders.good, other], folders.hr, metrics=["psnr"], subset=True)
    assert [system.name for system in found.systems] == [str(folders.good), str(other)]
    with pytest.raises(InputError, match="twice"):
        evaluation.run([other, other], folders.hr, metrics=["psnr"], subset=True)


def test_names_can_be_given(folders):
    found = evaluation.run({"ours": folders.good}, folders.hr, metrics=["psnr"])
    assert found.systems[0].name == "ours"


def test_progress_counts_images(folders):
    seen = []
    evaluation.run(folders.good, folders.hr, metrics=["psnr"], progress=lambda *s: seen.append(s))
    assert seen == [("good", 8, 10), ("good", 10, 10)]


def test_the_protocol_refuses_what_the_papers_do_not_do(folders, tmp_path):
    with pytest.raises(PairError, match=r"512x512, 10 of good differ \(first: 00\)"):
        evaluation.run(folders.good, folders.hr, protocol="papers")
    image = photograph(1, 512, 512)
    hr, sr = save(tmp_path / "hr", {"a.png": image}), save(tmp_path / "sr", {"a.jpg": image})
    with pytest.raises(PairError, match=r"PNG files, 1 of sr differ \(a\.jpg\)"):
        evaluation.run(sr, hr, protocol="papers")
    with pytest.raises(PairError, match="crop_border is 4"):
        evaluation.run(sr, hr, protocol="papers", settings=Settings(crop_border=4))
    with pytest.raises(InputError, match="no protocol 'paper'"):
        evaluation.run(sr, hr, protocol="paper")


def test_unknown_metrics_and_benchmarks_are_refused(folders):
    with pytest.raises(InputError, match=r"unknown metrics pnsr; there are psnr, ssim"):
        evaluation.run(folders.good, folders.hr, metrics=["pnsr"])
    with pytest.raises(InputError, match="RealSR, DRealSR, DIV2K-Val"):
        evaluation.run(folders.good, folders.hr, metrics=["psnr"], benchmark="Set5")


def test_undefined_scores_are_told_and_left_out_of_the_mean(tmp_path, niqe_file):
    images = {
        "flat.png": np.full((200, 300, 3), 90, np.uint8),
        "photo.png": photograph(1, 200, 300),
    }
    folder = save(tmp_path / "sr", images)
    found = evaluation.run(
        folder, folder, out=tmp_path, metrics=["niqe"], settings=Settings(niqe_params=niqe_file)
    )
    assert np.isnan(found.systems[0].scores["niqe"][0])
    mean = found.systems[0].mean("niqe")
    assert mean.count == 1
    assert np.isfinite(mean.value)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "NIQE is undefined on 1 image(s) of sr, such as flat" in summary["caveats"][0]


def fake_pyiqa(monkeypatch, create):
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create))


def test_pyiqa_is_asked_with_the_papers_options(folders, monkeypatch):
    asked = []

    def create(name, **options):
        def metric(sr, hr=None):
            assert sr.shape == (1, 3, 64, 80)
            assert 0 <= sr.min() < sr.max() <= 1
            return sr.mean() if hr is None else (sr - hr).abs().mean()

        asked.append((name, options))
        metric.metric_mode = "NR" if name == "musiq" else "FR"
        return metric

    fake_pyiqa(monkeypatch, create)
    found = evaluation.run(
        folders.good, folders.hr, metrics=["psnr", "lpips", "musiq"], cross_check=True
    )
    assert ("psnr", {"test_y_channel": True, "color_space": "ycbcr"}) in asked
    sr, hr = (
        np.asarray(Image.open(folder / "03.png")) / 255 for folder in (folders.good, folders.hr)
    )
    scores = found.systems[0].scores
    assert scores["musiq"][3] == pytest.approx(sr.mean(), abs=1e-6)
    assert scores["lpips"][3] == pytest.approx(np.abs(sr - hr).mean(), abs=1e-6)
    assert set(found.cross_check) == {"psnr"}
    assert found.cross_check["psnr"] > 30  # the stand-in gives no PSNR, and that is seen


def test_a_check_that_cannot_be_made_says_why(folders, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # importing it now fails
    found = evaluation.run(
        folders.good, folders.hr, out=tmp_path, metrics=["psnr"], cross_check=True
    )
    assert "pip install" in found.cross_check["psnr"]
    assert "- PSNR: not checked: " in (tmp_path / "summary.md").read_text()


def test_what_pyiqa_cannot_do_is_reported_as_not_run(folders, monkeypatch):
    def create(name, **options):
        raise OSError("no route to the weights\nand a long story")

    fake_pyiqa(monkeypatch, create)
    found = evaluation.run(folders.good, folders.hr, metrics=["psnr", "dists"])
    assert found.not_run == {
        "dists": "give --perceptual DIR; or, by pyiqa: "
        "pyiqa could not prepare dists: no route to the weights"
    }
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # importing it now fails
    found = evaluation.run(folders.good, folders.hr, metrics=["psnr", "dists"])
    assert "pip install" in found.not_run["dists"]
