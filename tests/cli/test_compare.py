"""`omgsr compare`: the page, its figures, and what it refuses."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import omgsr_jax
from omgsr_jax import cli, converted
from omgsr_jax.evaluation import Settings
from omgsr_jax.evaluation.compare import Version, scored


@pytest.fixture(scope="module")
def models(model_64, tmp_path_factory):
    """Two of one kind, at other timesteps."""
    folder = tmp_path_factory.mktemp("compare")
    for name, timestep in (("early", 195), ("<late>", 600)):
        shutil.copytree(model_64, folder / name)
        card = folder / name / converted.CARD
        described = json.loads(card.read_text())
        described["generator"]["mid_timestep"] = timestep
        card.write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def compared(models, tmp_path_factory):
    """The photograph, the page, and what was printed: a grey picture with transparency."""
    folder = tmp_path_factory.mktemp("page")
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 2), np.uint8)
    Image.fromarray(values).save(folder / "a&b.png")
    command = ["compare", str(folder / "a&b.png"), "-o", str(folder / "sheet.html"), "--models"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        assert cli.main([*command, str(models / "early"), str(models / "<late>")]) == 0
    return folder / "a&b.png", (folder / "sheet.html").read_text(), printed.getvalue()


def _embedded(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def _pixels(version: dict) -> np.ndarray:
    data = base64.b64decode(version["image"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)


def test_the_page_holds_what_each_model_gives(compared, models):
    photo, page, _ = compared
    data = _embedded(page)
    names = [version["name"] for version in data["versions"]]
    assert names == ["bicubic", str(models / "early"), str(models / "<late>")]
    assert data["size"] == [64, 64]
    assert "t_m 600" in data["versions"][2]["about"]
    _, first, second = data["versions"]
    result = omgsr_jax.load(first["name"]).upscale(photo).convert("RGBA")
    white = Image.new("RGBA", result.size, "white")
    expected = np.asarray(Image.alpha_composite(white, result).convert("RGB"), float)
    np.testing.assert_allclose(_pixels(first), expected, rtol=0, atol=1)  # rounded once
    assert min(first["seconds"], second["seconds"]) > 0
    assert np.abs(_pixels(first) - _pixels(second)).mean() > 3
    assert "a&amp;b.png" in page
    assert "<late>" not in page


def test_times_are_printed_and_what_cannot_run_is_named(compared):
    _, page, printed = compared
    assert "needs images of at least" in page
    lines = printed.splitlines()
    assert lines[0].split() == ["seconds"]
    assert lines[1].split() == ["bicubic", "-"]
    assert lines[2].split()[1] == f"{_embedded(page)['versions'][1]['seconds']:.2f}"


def test_every_version_is_scored_by_what_needs_no_reference():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    lattice = pixels.copy()
    lattice[::16] = lattice[:, ::16] = 255
    versions = [Version("a", "", pixels), Version("b", "", lattice)]
    scores = scored(versions, Settings())
    first, second = scores.values["grid"]
    assert second > first + 3
    assert {"niqe", "musiq", "maniqa", "clipiqa"} == set(scores.not_run)


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (["photo.png", "-o", "sheet.png", "--models", "nano"], "the name of a page", 2),
        (["photo.png", "-o", "a.html", "--models", "nano", "nano"], "given twice", 2),
        (["photo.png", "-o", "a.html", "--models", "nowhere"], "nowhere", 1),
        (["none.png", "-o", "a.html", "--models", "nano"], "none.png", 1),
        (["photo.html", "-o", "photo.html", "--models", "nano"], "would be overwritten", 1),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    arguments, expected, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 24)).save("photo.png")
    shutil.copy("photo.png", "photo.html")
    try:
        found = cli.main(["compare", *arguments])
    except SystemExit as usage:
        found = usage.code
    assert found == code
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "photo.html"}


@pytest.mark.slow
def test_a_browser_shows_two_of_them_and_moves_the_divider(compared, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    sheet, wrong = tmp_path / "sheet.html", []
    sheet.write_text(compared[1])
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url))
        page.goto(sheet.as_uri())
        wrong.remove(sheet.as_uri())
        assert page.locator("#table tr").count() == 4
        page.select_option("#right", "2")
        assert page.get_attribute("#under", "alt").endswith("<late>")
        page.click("text=4:1")
        box = page.locator("#stage").bounding_box()
        assert (box["width"], box["height"]) == (256, 256)
        page.mouse.move(box["x"] + 100, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 192, box["y"] + 50)
        page.mouse.up()
        assert float(page.input_value("#divider")) == pytest.approx(75, abs=0.3)
        assert "25" in page.evaluate("document.getElementById('over').style.clipPath")
        page.locator("#divider").press("Home")
        assert float(page.input_value("#divider")) == 0
        browser.close()
    assert not [entry for entry in wrong if not entry.startswith("data:")]
