"""Evaluations of what is too little, named badly, or the same twice."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from omgsr_jax import evaluation
from omgsr_jax.evaluation import cells, metrics, options, writing
from omgsr_jax.evaluation.results import Evaluation, System
from tests.evaluation.images import photograph, save
from tests.hostile.judge import assert_sentence, command, untouched

_ROOT = Path(__file__).parents[2]

NAMES = (
    "=1+1",
    "+1+cmd",
    "-2+3",
    "@SUM(A1)",
    "a|b",
    "a`b`",
    "*a*_b_",
    "<script>alert(1)</script>",
    "[a](https:x)",
    "&lt;b&gt;",
    "two\nlines",
    "{{DATA}}",
    "-1.5",
    "\u202egnp",
)


def _system(name, scores):
    images = [f"{i:02}" for i in range(len(scores))]
    return System(name, images, {"psnr": np.array(scores, float)}, {})


def _summary(*systems):
    return writing.summarise(Evaluation(list(systems), evaluation.Settings(), {}))


@pytest.fixture(scope="module")
def hr(tmp_path_factory):
    return save(tmp_path_factory.mktemp("e") / "hr", _images(6))


def _images(count, noise=0):
    rng = np.random.default_rng(noise)
    images = {f"{i}.png": photograph(i, 16, 16).astype(int) for i in range(count)}
    return {
        name: np.uint8(np.clip(image + noise * rng.standard_normal(image.shape), 0, 255))
        for name, image in images.items()
    }


def _eval(hr, *argv):
    return command("eval", "--hr", hr, "--metrics", "psnr", *argv)


@pytest.mark.parametrize(("count", "p"), [(1, None), (2, None), (5, None), (6, 2 / 64)])
def test_too_few_images_are_called_that_and_never_significant(count, p):
    """The case that was called significant: two images, p 0.0001."""
    summary = _summary(_system("a", [30.0] * count), _system("b", [20.0] * count))
    (difference,) = summary["differences"]
    assert (difference["count"], difference["p"]) == (count, p)
    assert difference["significant"] == (p is not None)
    text = writing.markdown(summary)
    assert ("| +10.00 | +10.00 to +10.00 | too few images |" in text) == (p is None)
    assert ("| **+10.00** |" in text) == (p is not None)


def test_too_few_images_take_nothing_from_the_others():
    """What is not tested is not corrected for."""
    scores = {"psnr": np.full(6, 1.0), "ssim": np.array([1.0] * 5 + [np.nan])}
    other = {key: values - 1 for key, values in scores.items()}
    images = [str(i) for i in range(6)]
    found = Evaluation(
        [System("a", images, scores, {}), System("b", images, other, {})],
        evaluation.Settings(),
        {},
    ).differences()
    assert {row.metric: (row.p, row.significant) for row in found} == {
        "psnr": (2 / 64, True),
        "ssim": (None, False),
    }


def test_no_bound_is_a_negative_zero():
    a = [20.0, 20.001, 19.999, 20.0, 20.0, 20.0]
    text = writing.markdown(_summary(_system("a", a), _system("b", [20.0] * 6)))
    assert "| 0.00 | 0.00 to 0.00 |" in text
    assert not re.search(r"[-+]0\.0+\b", text)
    metric = metrics.BY_KEY["psnr"]
    assert [metric.show_signed(x) for x in (-0.004, 0.004, -0.0, 1, -1, None)] == [
        *("0.00", "0.00", "0.00", "+1.00", "-1.00", "-")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula_no_markup_and_no_cell_of_its_own(name, tmp_path):
    found = Evaluation([_system(name, [-1.5, 2]), _system("b", [1, 2])], evaluation.Settings(), {})
    writing.write(found, tmp_path)
    with (tmp_path / "images.csv").open(newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["system", "image", "psnr"]
    assert first[0] == ("-1.5" if name == "-1.5" else cells.csv_cell(name))
    assert first[0][0] not in "=+-@\t\r" or first[0] == "-1.5"
    assert first[2] == "-1.500000"  # a number stays one
    row = next(line for line in (tmp_path / "summary.md").read_text().split("\n") if "**" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 3  # one cell of a name, one of a number
    assert not re.search(r"<|(?<!\\)`|(?<!\\)\[|https?:/", row)
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert page.count('id="data"') == 1
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert data["systems"] == [name, "b"]


def test_markdown_shows_a_text_as_it_is():
    assert cells.markdown("my_model-2.png") == "my_model-2.png"
    assert cells.markdown("a|b\n<i> `c` [d](http://e) www.f") == (
        r"a\|b &lt;i&gt; \`c\` \[d\](http\://e) www\.f"
    )


def test_files_of_such_names_are_scored(hr, tmp_path):
    names = ("=1+1.png", "a|b.png", "<script>.png", "`x`.png")
    one, other = (
        save(tmp_path / folder, dict(zip(names, _images(4, noise).values(), strict=True)))
        for folder, noise in (("=hr", 0), ("|sr", 3))
    )
    answer = command(
        *("eval", "--hr", one, "--sr", other, "--metrics", "psnr", "--out", tmp_path / "out")
    )
    assert answer.code == 0
    with (tmp_path / "out" / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {"'=1+1", "a|b", "<script>", "`x`"}


@pytest.mark.parametrize("how", ["folder", "link", "files", "hard links"])
def test_nothing_is_compared_with_itself(how, hr, tmp_path):
    sr = save(tmp_path / "sr", _images(6, noise=2))
    other = tmp_path / "other"
    if how == "link":
        other.symlink_to(sr)
    elif how == "folder":
        other = tmp_path / "sr" / ".." / "sr"
    else:
        other.mkdir()
        for path in sr.iterdir():
            (os.link if how == "hard links" else os.symlink)(path, other / path.name)
    with untouched(tmp_path, hr):
        answer = _eval(hr, "--sr", sr, "--sr", other)
        assert answer.code in (1, 2)
        assert_sentence(answer.reason, "the same files" if answer.code == 1 else "is given twice")
        # as references, too
        answer = command("eval", "--metrics", "psnr", "niqe", "--hr", sr, "--sr", other)
        assert answer.code == 1
        assert_sentence(answer.reason, "are the references themselves", "niqe, musiq")


def test_what_cannot_be_paired_is_a_sentence(hr, tmp_path):
    cases = {
        "holds no images": save(tmp_path / "empty", {}),
        "is not a folder": tmp_path / "absent",
        "0: the output is 8x8, the reference 16x16": save(
            tmp_path / "small", {f"{i}.png": photograph(i, 8, 8) for i in range(6)}
        ),
        "without an output": save(tmp_path / "fewer", _images(5, noise=2)),
    }
    for words, sr in cases.items():
        with untouched(tmp_path):
            answer = _eval(hr, "--sr", sr, "--out", tmp_path / "out")
        assert answer.code == 1
        assert words in answer.err


def test_scores_that_are_undefined_are_left_out_of_the_test():
    a, b = _system("a", [np.nan] * 6), _system("b", [1.0] * 6)
    summary = _summary(a, b)
    (difference,) = summary["differences"]
    assert (difference["value"], difference["count"], difference["p"]) == (None, 0, None)
    assert "| - | - to - | too few images |" in writing.markdown(summary)
    json.dumps(summary, allow_nan=False)


def test_wrong_names_are_usage_errors_before_anything_heavy_is_imported(hr):
    program = (
        "import sys; from omgsr_jax.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: print(stop.code, {'jax', 'numpy'} & {*sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "eval", "--hr", hr, "--sr", "x", "--metrics", "nique"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "2 set()\n", run.stderr
    assert "unknown metrics nique; there are psnr" in run.stderr


def test_the_metrics_that_can_be_asked_for_are_those_of_the_table():
    assert tuple(metrics.BY_KEY) == options.METRICS
    assert {key for key, row in metrics.BY_KEY.items() if row.about.startswith("no ref")} <= {
        *metrics.NO_REFERENCE
    }
