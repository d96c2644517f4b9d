"""The page in Chromium: pictures in, results out, and no word in its console or to other hosts."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from omgsr_jax import assets

from .processes import STAND_IN, Served, served

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")

_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_DESKTOP = {"viewport": {"width": 1280, "height": 800}}
_PHONE = {
    **{"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    **{"is_mobile": True, "has_touch": True, "color_scheme": "dark"},
}
# A folder for pictures of the page with nano, which docs/images has; see docs/serving.md.
_PICTURES = os.environ.get("OMGSR_PAGE_PICTURES")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    if _PICTURES:
        with served("-m", "omgsr_jax.cli", "serve", "--port", "0", "--largest", "1024") as service:
            yield service
    else:
        with served("-c", STAND_IN, "0.2") as service:
            yield service


class Watched:
    """A page of which everything is noted that must not be."""

    def __init__(self, browser, address: str, **options):
        self.address, self.wrong = address, []
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._look)

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _look(self, request) -> None:
        if not request.url.startswith((self.address, "blob:")):
            self.wrong.append(f"asks {request.url}")

    def __enter__(self):
        self.page.goto(self.address)
        about = self.page.locator("#about")
        about.filter(has_text="model stand-in").or_(about.filter(has_text="model nano")).wait_for()
        return self

    def __exit__(self, *error) -> None:
        self.context.close()

    def saved(self, selector: str) -> tuple[str, bytes]:
        """What a click downloads."""
        with self.page.expect_download() as download:
            self.page.click(selector)
        return download.value.suggested_filename, Path(download.value.path()).read_bytes()

    def divided(self) -> int:
        return int(self.page.get_attribute("#divider", "aria-valuenow"))


def photos(folder: Path) -> list[str]:
    """Such as the service takes: with nano those of the demo, else smaller ones."""
    paths = []
    for name in assets.SAMPLES[:3]:
        path = folder / f"{name}.png"
        image = Image.open(assets.sample(name).lr)
        (image if _PICTURES else image.resize((40, 36))).save(path)
        paths.append(str(path))
    return paths


def restore(watched: Watched, files: list[str], scale: str) -> None:
    page = watched.page
    page.set_input_files("#files", files)
    page.check(f"input[name=scale][value='{scale}']", force=True)
    page.click("#start")
    page.locator("#list .done").nth(len(files) - 1).wait_for(timeout=180_000)


@pytest.mark.slow
def test_upload_wait_drag_and_download_on_a_desktop(browser, service, tmp_path):
    files = photos(tmp_path)
    with Watched(browser, service.address, **_DESKTOP) as watched:
        page = watched.page
        restore(watched, files, "4")
        page.locator("#list .thumb").first.click()  # what is done first is shown
        box = page.locator("#stage").bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.25, middle, steps=5)
        page.mouse.up()
        assert watched.divided() == 25
        page.focus("#divider")
        page.keyboard.press("ArrowRight")
        assert watched.divided() == 27
        before = page.text_content("#percent")
        page.mouse.wheel(0, -300)
        assert page.text_content("#percent") != before
        page.click("#fit")
        assert page.text_content("#percent") == before
        page.keyboard.press("Tab")
        page.mouse.move(box["x"] + box["width"] * 0.25, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
        page.mouse.up()
        name, data = watched.saved("#save")
        width, height = Image.open(files[0]).size
        assert Path(name).suffix == ".png"
        assert Image.open(io.BytesIO(data)).size == (4 * width, 4 * height)
        name, data = watched.saved("#all")
        archive = zipfile.ZipFile(io.BytesIO(data))
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(Path(file).name for file in files)
        for file in files:
            width, height = Image.open(file).size
            larger = Image.open(archive.open(Path(file).name))
            assert larger.size == (4 * width, 4 * height)
        picture(watched, "serve-desktop")
        assert watched.wrong == []


@pytest.mark.slow
def test_the_same_on_a_phone_by_touch(browser, service, tmp_path):
    with Watched(browser, service.address, **_PHONE) as watched:
        page = watched.page
        restore(watched, photos(tmp_path)[:2], "2")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        box = page.locator("#stage").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
        assert watched.divided() == 40
        page.tap("#in")
        page.tap("#fit")
        for button in page.locator("button:visible, a.button:visible").all():
            assert button.bounding_box()["height"] >= 38
        picture(watched, "serve-phone")
        assert watched.wrong == []


@pytest.mark.slow
def test_what_is_refused_is_said_beside_its_picture(browser, service, tmp_path):
    wrong, large = tmp_path / "wrong.png", tmp_path / "large.png"
    wrong.write_bytes(b"this is no image")
    Image.new("RGB", (1000, 900)).save(large)
    with Watched(browser, service.address, **_DESKTOP) as watched:
        page = watched.page
        page.set_input_files("#files", [str(wrong), str(large)])
        page.click("#start")
        page.locator("#list .failed").nth(1).wait_for()
        said = " ".join(page.locator("#list .state").all_text_contents())
        assert "not an image that can be read here" in said
        page.locator("#list li").nth(1).get_by_label("Remove").click()
        assert page.locator("#list li").count() == 1
        assert watched.wrong == []


def picture(watched: Watched, name: str) -> None:
    if _PICTURES:
        path = Path(_PICTURES) / f"{name}.png"
        watched.page.screenshot(path=path)
        Image.open(path).save(path.with_suffix(".webp"), quality=82, method=6)
        path.unlink()
