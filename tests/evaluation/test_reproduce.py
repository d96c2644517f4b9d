"""scripts/reproduce.py: the paper's tables with rows of one's own; and the paper's numbers."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import converted
from omgsr_jax.errors import InputError
from omgsr_jax.evaluation import papers, restoring, shared_sets
from omgsr_jax.models.lora import LoRASpec
from tests.evaluation.images import photograph, save
from tests.stand_in import write_stand_in

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce.py"

# Typed a second time, from the paper's text: PSNR, SSIM, LPIPS, DISTS, FID, NIQE, MUSIQ, MANIQA,
# CLIPIQA of Tables 1 and 5, and the seconds of Table 2.
SCORES = {
    ("RealSR", "OMGSR-S"): (25.70, 0.7283, 0.2896, 0.2103, 108.41, 5.0571, 67.71, 0.6544, 0.6542),
    ("RealSR", "OMGSR-F"): (26.62, 0.7625, 0.2586, 0.1927, 104.34, 5.3724, 66.45, 0.6322, 0.5891),
    ("DRealSR", "OMGSR-S"): (28.64, 0.7698, 0.3181, 0.2211, 127.52, 5.7819, 63.52, 0.6119, 0.6747),
    ("DRealSR", "OMGSR-F"): (29.58, 0.8024, 0.2760, 0.1975, 121.81, 6.4835, 61.55, 0.5926, 0.6135),
    ("DIV2K-Val", "OMGSR-S"): (23.83, 0.5952, 0.2926, 0.1875, 24.46, 4.269, 67.04, 0.6429, 0.6644),
    ("DIV2K-Val", "OMGSR-F"): (24.44, 0.6237, 0.2629, 0.1742, 21.96, 4.7361, 67.46, 0.6483, 0.6555),
}
SECONDS = {"OSEDiff": 0.0947, "SinSR": 0.0688, "PiSA-SR": 0.0664, "TSD-SR": 0.0849}
SECONDS |= {"OMGSR-S": 0.0648, "OMGSR-F": 0.2066, "OMGSR-F (1k)": 0.7947}
ONE_STEP = ["OSEDiff", "SinSR", "PiSA-SR", "TSD-SR", "OMGSR-S", "OMGSR-F"]


def run(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, argv)])
    return runpy.run_path(str(SCRIPT))["main"]()


# The paper's rows


def test_the_papers_numbers_are_copied_as_they_are():
    for (benchmark, method), scores in SCORES.items():
        (row,) = (row for row in papers.paper_rows(benchmark) if row.method == method)
        assert tuple(row.scores.values()) == scores
        assert {1, 5} <= set(row.tables)
    assert {row.method: row.seconds for row in papers.paper_seconds()} == SECONDS
    assert [row.pixels for row in papers.paper_seconds()] == [512] * 6 + [1024]


@pytest.mark.parametrize("benchmark", papers.IMAGES)
def test_table_1_has_the_methods_of_one_step_and_table_5_all(benchmark):
    one, five = (papers.paper_rows(benchmark, table) for table in (1, 5))
    flux = ["FluxSR"] if benchmark != "DRealSR" else []
    assert sorted(row.method for row in one) == sorted(ONE_STEP + flux)
    assert {row.steps for row in one} == {1}
    assert len(five) == len(one) + 6
    assert [row.method for row in papers.paper_rows(benchmark, 4)] == (
        [] if benchmark == "DIV2K-Val" else ["OMGSR-S", "OMGSR-S (t_m = 999)"]
    )


# The test sets


def test_sets_are_found_as_they_are_shared(tmp_path):
    inside = tmp_path / "StableSR_testsets"
    for name in ("RealSRVal_crop128/test_LR", "RealSRVal_crop128/test_HR",
                 "DIV2K_V2_val/lq", "DIV2K_V2_val/gt"):  # fmt: skip
        (inside / name).mkdir(parents=True)
    for data in (tmp_path, inside):
        found, missing = shared_sets.find_sets([str(data)])
        assert set(found) == {"RealSR", "DIV2K-Val"}
        assert found["RealSR"].lr == inside / "RealSRVal_crop128" / "test_LR"
        assert found["DIV2K-Val"].hr == inside / "DIV2K_V2_val" / "gt"
        assert list(missing) == ["DRealSR"]
        assert "DrealSRVal_crop128" in missing["DRealSR"]
        assert "Iceclear/StableSR-TestSets" in missing["DRealSR"]


def test_a_set_may_be_named(tmp_path):
    (tmp_path / "mine" / "lr").mkdir(parents=True)
    (tmp_path / "mine" / "hr").mkdir()
    found, missing = shared_sets.find_sets([f"DRealSR={tmp_path / 'mine'}"])
    assert found["DRealSR"].hr == tmp_path / "mine" / "hr"
    assert set(missing) == {"RealSR", "DIV2K-Val"}
    with pytest.raises(InputError, match="is no set of pairs: expected folders in it called"):
        shared_sets.find_sets([f"RealSR={tmp_path}"])
    with pytest.raises(InputError, match=r"Set5=x is not a folder: expected one that holds"):
        shared_sets.find_sets(["Set5=x"])


def test_some_images_are_taken_evenly_from_the_names(tmp_path):
    images = {f"{i:02}.png": np.zeros((8, 8 + i % 2, 3), np.uint8) for i in range(10)}
    folder = save(tmp_path, images)
    found = restoring.find_pairs(folder, folder)
    assert [file.name for file in restoring.evenly(found, 4)] == ["00", "02", "05", "07"]
    assert restoring.evenly(found, None) == found
    assert restoring.evenly(found, 11) == found


# The tables


@pytest.fixture
def realsr(tmp_path):
    """Three pairs in the shared layout, and models that darken more and more."""
    folder = tmp_path / "sets" / "RealSRVal_crop128"
    hr = {f"Canon_00{i}.png": photograph(i, 512, 512) for i in range(3)}
    save(folder / "test_HR", hr)
    save(folder / "test_LR", {name: image[::4, ::4] for name, image in hr.items()})
    return folder.parent


@pytest.fixture
def darkening(monkeypatch):
    """In place of restoring: a model's name says by how many levels it darkens the reference."""

    def restore(model, lr_dir, hr_dir, out, *, images=None, **_):
        for path in sorted(hr_dir.iterdir())[:images]:
            image = np.asarray(Image.open(path)).astype(int) - int(Path(model).name)
            save(out, {path.name: image.clip(0).astype(np.uint8)})

    monkeypatch.setattr(restoring, "restore_inputs", restore)


def test_table_1_stands_beside_the_papers(realsr, darkening, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("10", "20"):  # as if they were models
        Path(name).mkdir()
    out = tmp_path / "out"
    argv = ["--table", 1, "--data", realsr, "--models", "OMGSR-F=10", "20", "--out", out]
    assert run(monkeypatch, *argv, "--images", 2) == 0
    report = json.loads((out / "table.json").read_text())
    found = report["sets"]["RealSR"]
    assert report["models"] == {"OMGSR-F": "10", "20": "20"}
    assert set(report["missing"]) == {"DRealSR", "DIV2K-Val"}
    assert [row["method"] for row in found["papers"]] == [*ONE_STEP[:4], "FluxSR", *ONE_STEP[4:]]

    means = {name: system["metrics"]["psnr"] for name, system in found["systems"].items()}
    assert means["OMGSR-F"]["value"] > means["20"]["value"]
    offsets = {(row["system"], row["metric"]): row for row in found["offsets"]}
    own, other = offsets["OMGSR-F", "psnr"], offsets["20", "psnr"]
    assert (own["method"], other["method"]) == ("OMGSR-F", "OMGSR-S")
    assert own["value"] == pytest.approx(means["OMGSR-F"]["value"] - 26.62)
    assert other["low"] == pytest.approx(means["20"]["low"] - 25.70)
    paired = next(row for row in found["differences"] if row["metric"] == "psnr")
    assert (paired["a"], paired["b"]) == ("OMGSR-F", "20")
    assert paired["low"] > 5  # 20 levels against 10 on the same images

    text = capsys.readouterr().out
    assert text == (out / "table.md").read_text() + "\n"
    assert "| OMGSR-F, 1 step(s) | 26.62 |" in text
    assert "LPIPS: give --perceptual DIR" in text
    assert "FID: no Inception weights: give --inception FILE" in text
    assert "DrealSRVal\\_crop128" in text or "DrealSRVal_crop128" in text
    assert "RealSR has 100 images, this evaluation 2" in text


class Instant:
    """In place of a loaded model: compiling one takes longer than the rest of the test."""

    process_size = 64

    def function(self, size, *, scale):
        def enlarge(images):
            assert images.shape == (1, *size, 3)
            return images.repeat(scale, 1).repeat(scale, 2)

        return enlarge


def test_table_2_times_models_on_this_device(tmp_path, monkeypatch, capsys):
    spec = LoRASpec(rank=2, alpha=2, targets=("conv1", "to_q"))
    model = write_stand_in(tmp_path / "model", process_size=64, adapters=spec)
    monkeypatch.setattr(omgsr_jax, "load", lambda *_, **__: Instant())
    argv = ["--table", 2, "--models", f"OMGSR-S={model}", "--runs", 3, "--out", tmp_path / "out"]
    assert run(monkeypatch, *argv) == 0
    report = json.loads((tmp_path / "out" / "table.json").read_text())
    (row,) = report["rows"]
    assert (row["method"], row["pixels"], row["runs"]) == ("OMGSR-S", 64, 3)
    assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
    shapes = converted.stored_shapes(model)
    prompt = shapes["prompt.context"].size
    assert sum(row["parameters"].values()) == sum(leaf.size for leaf in shapes.values()) - prompt
    assert row["parameters"]["adapters"] > 0
    text = capsys.readouterr().out
    assert "| OMGSR-F (1k) | 1024 | 0.7947 | - | - | one L40S |" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--table", 1, "--models", "nano"], "give them with --data"),
        (["--table", 2, "--models", "a=x", "a=y"], "two models have one name"),
        (["--table", 2, "--models", "a=x"], "'x' is not a model"),
        (["--table", 5, "--models", "nano", "--data", "."], "no test set is there:"),
    ],
)
def test_what_cannot_be_reproduced_is_said(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *argv, "--out", "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
