"""Every hostile image gets its answer from whole commands: right pixels, or a sentence."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from omgsr_jax import files
from omgsr_jax.data import DataConfig, list_images, open_sources, read_image
from omgsr_jax.data.pipeline import Examples
from omgsr_jax.errors import InputError
from omgsr_jax.inference import images
from omgsr_jax.inference.loading import load
from omgsr_jax.inference.options import Options
from omgsr_jax.inference.pictures import from_array
from omgsr_jax.inference.results import Upscaled
from omgsr_jax.inference.sizes import Enlargement
from tests.hostile.images import Case, all_cases
from tests.hostile.judge import Answer, assert_sentence, command, little_memory, untouched
from tests.stand_in import write_stand_in

CASES = all_cases()
GOOD = [case for case in CASES if case.pixels is not None]
BAD = [case for case in CASES if case.pixels is None]
BY_NAME = {case.name: case for case in CASES}
# What a TIFF of ours may say: its own way of storing pixels, and what describes the photograph.
_TIFF_TAGS = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 338}
_TIFF_TAGS |= {270, 271, 272, 282, 283, 296, 305, 306, 315, 700, 33432, 34665, 34675, 34853}


class Identity:
    """A model that restores nothing."""

    batch = 1

    def plan(self, sizes, options):
        """Nothing is compiled."""

    def canvas(self, size, options):
        return size

    def restore(self, batch, options, on_progress=None):
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
    monkeypatch.setattr("omgsr_jax.inference.loading.load", lambda *_, **__: Identity())


def folder_of(cases: Sequence[Case], folder: Path) -> Path:
    folder.mkdir()
    for case in cases:
        case.write(folder)
    return folder


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
    *lines, _ = [json.loads(line) for line in answer.out.splitlines()]
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


def over_white(pixels: np.ndarray) -> np.ndarray:
    """h w 3 of 0 .. 255."""
    levels = pixels / np.iinfo(pixels.dtype).max * 255
    colours = levels[..., [0, 0, 0]] if pixels.shape[-1] < 3 else levels[..., :3]
    alpha = levels[..., -1:] / 255 if pixels.shape[-1] in (2, 4) else 1
    return colours * alpha + 255 * (1 - alpha)


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
            assert_sentence(said, Path(case.name).stem, *case.notes)

    judged(CASES, judge)
    assert found.keys() == BY_NAME.keys()
    assert len(written) == sum(case.pixels is not None for case in CASES), "files are left over"
    assert len(CASES) >= 300


def test_degrading_answers_every_case(corpus, tmp_path):
    chosen = [*BAD, *GOOD[::8]]
    folder = folder_of(chosen, tmp_path / "in")
    with untouched(folder):
        answer = command("degrade", folder, "-o", tmp_path / "out", "--resize-back")
    assert answer.code == 1, answer.err
    lines = answer.err.splitlines()

    def judge(case: Case) -> None:
        goal = tmp_path / "out" / "hr" / f"{Path(case.name).stem}.png"
        if case.pixels is None or min(case.pixels.shape[:2]) < 4:
            said = [line for line in lines if case.name in line]
            assert len(said) == 1, f"it said: {said}"
            small = case.pixels is not None or case.name == "strip.png"
            words = ("is too small",) if small else case.says
            assert_sentence(said[0], case.name, *words)
            assert not goal.exists(), "something was written all the same"
            return
        height, width = (side - side % 4 for side in case.pixels.shape[:2])
        top, left = (case.pixels.shape[0] - height) // 2, (case.pixels.shape[1] - width) // 2
        expected = over_white(case.pixels)[top : top + height, left : left + width]
        apart = np.abs(read_back(goal, deep=False).astype(np.float64) - expected).mean()
        assert apart <= case.tolerance + 0.6, f"pixels are {apart:.2f} apart"

    judged(chosen, judge)


def test_scoring_sees_the_right_pixels_of_every_kind(tmp_path):
    """Outputs are the cases, references what they show: their PSNR is as high as can be."""
    cases = [case for case in GOOD[::3] if case.pixels.shape == (12, 16, 3) and not case.tolerance]
    cases = [case for case in cases if case.pixels.dtype == np.uint8]
    sr, hr = folder_of(cases, tmp_path / "sr"), tmp_path / "hr"
    hr.mkdir()
    for case in cases:
        Image.fromarray(case.pixels).save(hr / f"{Path(case.name).stem}.png")
    with untouched(sr, hr):
        answer = command(
            *("eval", "--sr", sr, "--hr", hr, "--metrics", "psnr", "--out", tmp_path / "out")
        )
    assert answer.code == 0, answer.err
    with open(tmp_path / "out" / "images.csv", newline="") as file:
        scores = {row["image"]: float(row["psnr"]) for row in csv.DictReader(file)}
    assert len(scores) == len(cases) > 20
    assert {name: score for name, score in scores.items() if score < 80} == {}


def test_scoring_names_what_it_cannot_read(tmp_path):
    def judge(case: Case) -> None:
        stem = Path(case.name).stem
        bad, good = (folder_of([], tmp_path / f"{stem}{number}") for number in range(2))
        case.write(bad)
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(good / f"{stem}.png")
        for sr, hr in ((bad, good), (good, bad)):
            with untouched(bad, good):
                answer = command("eval", "--sr", sr, "--hr", hr, "--metrics", "psnr")
            assert answer.code == 1, "it was scored"
            reason = answer.err.replace(str(tmp_path), "")
            no_pair = "the output is" in reason or "per channel" in reason
            assert_sentence(reason, stem, *(() if no_pair else case.says))

    judged(BAD[::4], judge)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_sparse_files_bombs_and_lying_sizes_take_little_memory(corpus):
    def judge(case: Case) -> None:
        for read in (images.read, read_image, files.header):
            try:
                read(corpus / case.name)
            except InputError:
                continue
            except MemoryError:
                raise AssertionError(f"{read.__name__} takes more than 1 GB") from None

    with little_memory(2**30):
        judged([case for case in BAD if case.name.startswith(("sparse", "bomb", "side"))], judge)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_training_data_answer_every_case(corpus):
    """And the search for the mid-timestep, which takes the same pipeline."""
    config = DataConfig(sources=(str(corpus),), resolution=16, batch_size=1)
    found = Examples(config, open_sources(config.sources), seed=0, shuffle=False)
    names = [Path(path).name for path in list_images(corpus)]

    def judge(case: Case) -> None:
        example = found(names.index(case.name))
        if case.pixels is None and case.says != ("too narrow a strip",):
            assert "damaged" in example, "it was read"
            assert_sentence(example["damaged"], case.name, *case.says)
        else:
            assert example.get("hr") is not None, example.get("damaged")

    judged([*BAD, *GOOD[::8]], judge)


@pytest.mark.slow
def test_the_real_network_gets_the_right_pixels(corpus, compile_cache, tmp_path, monkeypatch):
    """Of twenty kinds of file: the result is bit for bit that of the array that is in it."""
    model = write_stand_in(tmp_path / "model", process_size=64)
    upscaler = load(model)
    monkeypatch.setattr("omgsr_jax.inference.loading.load", lambda *_, **__: upscaler)
    exact = [case for case in GOOD if case.pixels.shape[:2] == (12, 16) and not case.tolerance]
    chosen = exact[:: len(exact) // 20][:20]
    paths = [corpus / case.name for case in chosen]
    answer = command(
        *("upscale", *paths, "-o", tmp_path / "out", "--format", "png", "--json", "--model", model)
    )
    assert answer.code == 0, answer.err
    found = reports(answer)
    options = Options(Enlargement.asked())

    def judge(case: Case) -> None:
        [expected] = upscaler.restore([from_array(case.pixels)], options)
        pixels = expected.picture.pixels()
        assert_shows(Path(found[case.name]["output"]), replace(case, pixels=pixels))

    judged(chosen, judge)
    assert len(chosen) == 20


def test_nothing_of_how_pixels_were_stored_gets_into_a_result(corpus, identity, tmp_path):
    tiffs = [case for case in CASES if case.pixels is not None and ".tif" in case.name]
    paths = [corpus / case.name for case in tiffs]
    answer = command("upscale", *paths, "-o", tmp_path, "--scale", "1", "--json")
    assert answer.code == 0, answer.err
    found = reports(answer)

    def judge(case: Case) -> None:
        goal = Path(found[case.name]["output"])
        with Image.open(goal) as image:
            if image.format == "TIFF":
                further = set(image.tag_v2) - _TIFF_TAGS
                assert not further, f"tags {further}"
                deep = image.mode == "I;16"
                shown = np.asarray(image) / 257 if deep else np.asarray(image.convert("RGB"))
                expected = case.pixels / np.iinfo(case.pixels.dtype).max * 255
                colours = expected[..., 0] if deep else expected[..., [0, 0, 0]]
                if expected.shape[-1] > 2:
                    colours = expected[..., :3]
                apart = np.abs(shown - colours).mean()
                assert apart <= case.tolerance + 0.6, f"pixels are {apart:.2f} apart"

    judged(tiffs, judge)
