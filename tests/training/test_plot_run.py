"""scripts/plot_run.py: one curve for each run, one colour for each folder of runs."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

_SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_run.py"
_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / group / str(seed) for group in ("mid", "last") for seed in range(2)]
    for i, folder in enumerate(folders):
        folder.mkdir(parents=True)
        lines = [{"step": step, "psnr": 20 + step + i} for step in (0, 2, 4)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folders


def _plot(*args):
    command = [sys.executable, str(_SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=_SCRIPT.parents[1])


def test_runs_of_a_folder_share_a_colour_and_a_scale(runs, tmp_path):
    done = _plot(*runs, "--scalars", "psnr", "--out", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    curves = root.findall(f".//{_SVG}polyline")
    assert [curve.get("stroke") for curve in curves[:2]] == [curves[0].get("stroke")] * 2
    assert [curve.get("stroke") for curve in curves[2:]] == [curves[2].get("stroke")] * 2
    assert curves[0].get("stroke") != curves[2].get("stroke")
    text = " ".join(root.itertext())
    assert "mid" in text
    assert "last" in text
    assert "20" in text  # the least of all runs
    assert "27" in text  # the most: 20 + 4 + 3

    heights = [float(curve.get("points").split()[0].split(",")[1]) for curve in curves]
    assert heights == sorted(heights, reverse=True)  # each begins above the one before


def test_a_run_without_the_scalar_is_named_with_what_it_has(runs, tmp_path):
    done = _plot(*runs, "--scalars", "loss", "--out", tmp_path / "a.svg")
    assert done.returncode == 1
    assert "has no curve for loss; it has psnr" in done.stderr
    assert not (tmp_path / "a.svg").exists()
