"""The HTML report: whole in one file, and it draws itself in a browser without complaint."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from omgsr_jax import evaluation
from omgsr_jax.evaluation.report import _detailed_window
from tests.evaluation.images import photograph, save

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    images = {f"{i:02}.png": photograph(i, 64, 80) for i in range(8)}
    small = {name: image[::4, ::4] for name, image in images.items()}
    hr, lr = save(root / "hr", images), save(root / "lr", small)
    dark = save(root / "dark & <b>", {n: (x * 0.9).astype(np.uint8) for n, x in images.items()})
    bright = save(root / "bright", {n: x // 2 + 127 for n, x in images.items()})
    evaluation.run(
        [dark, bright], hr, lr, out=root, metrics=["psnr", "ssim", "fid"], benchmark="RealSR"
    )
    return root / "report.html"


def embedded(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))


def test_nothing_is_fetched_from_anywhere(report):
    page = report.read_text()
    assert not re.search(r"https?://|src=\"(?!data:)|url\(|@import|<link(?! rel=\"icon\")", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_names_of_folders_cannot_become_markup(report):
    page = report.read_text()
    assert "<b>" not in page.replace("<b>FID</b>", "")
    title = unescape(re.search("<title>(.*?)</title>", page).group(1))
    assert title == "dark & <b> vs bright on RealSR"


def test_scores_crops_and_papers_are_embedded(report):
    data = embedded(report.read_text())
    assert data["systems"] == ["dark & <b>", "bright"]
    assert [row["name"] for row in data["images"]] == [f"{i:02}" for i in range(8)]
    assert [len(scores) for scores in data["images"][0]["scores"]] == [2, 2]
    psnr = [sum(row["scores"][s][0] for s in (0, 1)) for row in data["images"]]
    assert data["groups"]["psnr"]["worst"][0] == f"{int(np.argmin(psnr)):02}"
    assert data["groups"]["psnr"]["best"][0] == f"{int(np.argmax(psnr)):02}"
    assert len(data["groups"]["psnr"]["differ"]) == 3
    crop = data["crops"][data["groups"]["psnr"]["worst"][0]]
    for uri in (crop["lr"], *crop["sr"], crop["hr"]):
        assert uri.startswith("data:image/webp;base64,")
    assert any(row["method"] == "OMGSR-F" for row in data["summary"]["papers"])
    assert "fid" in data["summary"]["not_run"]


def test_each_metric_has_a_plot_with_a_dot_for_each_image(report):
    page = report.read_text()
    plots = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(plots) == 2
    assert [plot.count("<circle") for plot in plots] == [16, 16]
    assert "nan" not in "".join(plots)


def test_crops_show_where_the_reference_has_detail():
    image = np.full((512, 640, 3), 100, np.uint8)
    image[300:400, 420:520] = np.random.default_rng(0).integers(0, 255, (100, 100, 3))
    top, left, height, width = _detailed_window(image)
    assert (height, width) == (192, 192)
    assert top <= 300
    assert top + height >= 400
    assert left <= 420
    assert left + width >= 520


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the report with")
def test_a_browser_draws_it_without_error_or_request(report, tmp_path):
    log = tmp_path / "net.json"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", f"--log-net-log={log}"]
    done = subprocess.run(
        [*command, "--dump-dom", report.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr
    rows = {
        table: re.search(rf'id="{table}".*?</table>', done.stdout, re.S).group(0).count("<tr")
        for table in ("means", "differences", "images")
    }
    assert rows == {"means": 1 + 2 + 14, "differences": 1 + 2, "images": 1 + 8}
    assert done.stdout.count("<img") == 9 * 4  # worst, best, most different: LR, two outputs, HR
    # Chromium itself calls home; the page may not even try, which its policy would log as an error.
    hosts = set(re.findall(r'"url":"https?://([^/"]*)', log.read_text()))
    assert {
        host for host in hosts if not host.endswith((".google.com", ".googleapis.com"))
    } == set()
