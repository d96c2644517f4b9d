"""The papers' benchmark at full size: known scores, and the time and memory they take."""

import resource
import time

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import evaluation
from omgsr_jax.evaluation import Settings
from tests.evaluation.images import photograph, save

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(data):
    return Settings(niqe_params=data / "metric_golden/niqe_pris_params.npz")


def test_bicubic_scores_as_recorded(data, settings, tmp_path):
    hr = data / "realsr100/hr"
    images = {}
    for path in sorted((data / "realsr100/lr").glob("*.png")):
        small = Image.open(path).convert("RGB")
        large = small.resize((small.width * 4, small.height * 4), Image.Resampling.BICUBIC)
        images[path.name] = np.asarray(large)
    assert len(images) == 100
    bicubic = save(tmp_path / "bicubic", images)

    start = time.perf_counter()
    result = evaluation.run(
        bicubic,
        hr,
        metrics=["psnr", "ssim", "niqe"],
        protocol="papers",
        benchmark="RealSR",
        settings=settings,
    )
    seconds = time.perf_counter() - start
    means = {key: result.systems[0].mean(key).value for key in ("psnr", "ssim", "niqe")}
    print(f"\n{seconds:.1f} s for 100 pairs with compilation: {means}")
    assert round(means["psnr"], 2) == 27.11
    assert round(means["ssim"], 4) == 0.7555
    assert round(means["niqe"], 2) == 8.99
    assert seconds < 60


def test_the_references_own_niqe_is_as_recorded(data, settings):
    hr = data / "realsr100/hr"
    result = evaluation.run(hr, hr, metrics=["niqe"], settings=settings)
    assert round(result.systems[0].mean("niqe").value, 2) == 6.12


def test_memory_does_not_grow_with_the_number_of_images(settings, tmp_path):
    image = photograph(1, 512, 512)
    folder = save(tmp_path / "sr", {"a.png": image})
    file = evaluation.find_pairs(folder, folder)[0]
    ready, _ = evaluation.prepare(["psnr", "ssim", "niqe"], settings, [[file]])

    def peak_after(count):
        stream = (evaluation.Pair(str(i), image.copy(), image.copy()) for i in range(count))
        evaluation.score("stream", stream, ready)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    first = peak_after(32)
    later = peak_after(320)
    print(f"\npeak {first:.0f} MiB after 32 pairs, {later:.0f} MiB after 320 more")
    assert later - first < 64  # 320 pairs held in memory would be 480 MiB
