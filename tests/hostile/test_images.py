"""Every hostile image gets its answer from whole commands: right pixels, or a sentence."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from omgsr_jax.inference.upscaler import Upscaled
from tests.hostile.images import Case, all_cases
from tests.hostile.judge import Answer, assert_sentence, command, untouched

CASES = all_cases()
BY_NAME = {case.name: case for case in CASES}
# What a TIFF of ours may say: its own way of storing pixels, and what describes the photograph.
_TIFF_TAGS = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 338}
_TIFF_TAGS |= {270, 271, 272, 282, 283, 296, 305, 306, 315, 700, 33432, 34665, 34675, 34853}


class Identity:
    """A model that restores nothing."""

    programs = SimpleNamespace(batch=1)

    def plan(self, sizes, options):
        """Nothing is compiled."""

    def restore(self, batch, options):
        for picture in batch:
            options.enlargement.of(picture.size)
        return [Upscaled(picture, picture.size) for picture in batch]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for case in CASES:
        case.write(folder)
    return folder


@pytest.fixture
def identity(monkeypatch):
    monkeypatch.setattr("omgsr_jax.inference.upscaler.load", lambda *_, **__: Identity())


def judged(cases: Sequence[Case], judge: Callable[[Case], None]) -> None:
    """All cases that are not answered as they should be, at once."""
    wrong = []
    for case in cases:
        try:
            judge(case)
        except AssertionError as error:
            wrong.append(f"{case.name}: {str(error).splitlines()[0]}")
    assert not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong)


def reports(answer: Answer) -> Mapping[str, dict]:
    lines = [json.loads(line) for line in answer.out.splitlines()]
    return {Path(line["input"]).name: line for line in lines}


def read_back(path: Path, *, deep: bool) -> np.ndarray:
    """A PNG of ours: h w c."""
    if not deep:
        pixels = np.asarray(Image.open(path))
        return pixels if pixels.ndim == 3 else pixels[..., None]
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]


def assert_shows(path: Path, case: Case) -> None:
    assert case.pixels is not None
    found = read_back(path, deep=case.pixels.dtype == np.uint16)
    expected = case.pixels
    if found.shape[-1] == 4 and expected.shape[-1] == 2:  # OpenCV has no grey with alpha
        expected = expected[..., [0, 0, 0, 1]]
    assert found.dtype == expected.dtype, f"{found.dtype}, not {expected.dtype}"
    assert found.shape == expected.shape, f"{found.shape}, not {expected.shape}"
    apart = np.abs(found.astype(np.float64) - expected).mean()
    assert apart <= case.tolerance, f"pixels are {apart:.2f} apart in the mean"


def test_upscaling_answers_every_case(corpus, identity, tmp_path):
    with untouched(corpus):
        answer = command(
            "upscale", corpus, "-o", tmp_path, "--format", "png", "--scale", "1", "--json"
        )
    assert answer.code == 1
    found, written = reports(answer), {path.name for path in tmp_path.rglob("*")}

    def judge(case: Case) -> None:
        report = found[case.name]
        goal = Path(report["output"])
        if case.pixels is None:
            assert report["status"] == "failed", "it was read"
            assert_sentence(report["error"], case.name, *case.says)
            assert goal.name not in written, "something was written all the same"
            return
        assert report["status"] == "done", report["error"]
        assert_shows(goal, case)
        said = " ".join(report["notes"])
        assert bool(said) == bool(case.notes), f"it said: {said or 'nothing'}"
        if case.notes:
            assert_sentence(said, case.name, *case.notes)

    judged(CASES, judge)
    assert found.keys() == BY_NAME.keys()
    assert len(written) == sum(case.pixels is not None for case in CASES), "files are left over"
    assert len(CASES) >= 300


def test_nothing_of_how_pixels_were_stored_gets_into_a_result(corpus, identity, tmp_path):
    answer = command("upscale", corpus, "-o", tmp_path, "--scale", "1", "--json")
    found = reports(answer)

    def judge(case: Case) -> None:
        goal = Path(found[case.name]["output"])
        with Image.open(goal) as image:
            if image.format == "TIFF":
                further = set(image.tag_v2) - _TIFF_TAGS
                assert not further, f"tags {further}"
            shown = np.asarray(image.convert("RGBA")).astype(np.float64)
        expected = case.pixels / np.iinfo(case.pixels.dtype).max * 255
        grey, alpha = expected.shape[-1] < 3, expected.shape[-1] in (2, 4)
        rgb = expected[..., [0, 0, 0]] if grey else expected[..., :3]
        if goal.suffix in (".jpg", ".jpeg", ".bmp") and alpha:
            return
        lossy = goal.suffix not in (".png", ".tif", ".tiff", ".bmp")
        apart = np.abs(shown[..., :3] - rgb).mean()
        if not (lossy and np.abs(np.diff(rgb, axis=0)).mean() > 40):  # noise does not survive
            assert apart <= case.tolerance + 12 * lossy + 0.6, f"pixels are {apart:.2f} apart"

    judged([case for case in CASES if case.pixels is not None], judge)
