"""Minutes-long checks on the Kodak photographs: the two implementations against each other and
against the published pipeline, whose checkout the variable OMGSR_PUBLISHED names."""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from omgsr_jax.data import PRESETS, degrade, example_rng, sampled_plan
from omgsr_jax.data.degradation_jax import degrade_batch, plan_arrays
from tests.data.photos import TEST_DATA, kodak_crops

SAMPLES = 500
PUBLISHED = os.environ.get("OMGSR_PUBLISHED", "")
CONFIG = PRESETS[512]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TEST_DATA / "kodak24").is_dir(), reason="needs the Kodak photographs"),
]
needs_published = pytest.mark.skipif(
    not PUBLISHED, reason="OMGSR_PUBLISHED names no checkout of the published repository"
)


@pytest.fixture(scope="module")
def crops():
    return kodak_crops(512)


@pytest.fixture(scope="module")
def plans():
    return [sampled_plan(CONFIG, example_rng(0, 0, i)) for i in range(SAMPLES)]


def psnr(lr, hr):
    return 10 * np.log10(255**2 / np.mean((lr.astype(float) - hr) ** 2, axis=(-3, -2, -1)))


@pytest.fixture(scope="module")
def host_psnr(crops, plans):
    samples = ((crops[i % len(crops)], plan) for i, plan in enumerate(plans))
    return np.array([psnr(degrade(hr, plan, CONFIG.scale), hr) for hr, plan in samples])


def run_published(crops, count, folder):
    np.save(folder / "crops.npy", crops)
    script = Path(__file__).with_name("published_pipeline.py")
    command = [sys.executable, script, PUBLISHED, folder / "crops.npy", count, folder / "out.npz"]
    subprocess.run(list(map(str, command)), check=True)
    return np.load(folder / "out.npz")


def test_host_and_device_lose_the_same(crops, plans, host_psnr):
    device_psnr = []
    for start in range(0, SAMPLES, 4):
        hr = np.stack([crops[(start + k) % len(crops)] for k in range(4)])
        arrays = [plan_arrays(plan, CONFIG, (512, 512)) for plan in plans[start : start + 4]]
        stacked = {key: np.stack([a[key] for a in arrays]) for key in arrays[0]}
        lr = degrade_batch(hr, stacked, CONFIG)
        device_psnr.extend(psnr(np.asarray(lr, float), hr))
    device_psnr = np.array(device_psnr)
    test = stats.ks_2samp(host_psnr, device_psnr)
    apart = np.abs(host_psnr - device_psnr)
    print(f"\nhost {host_psnr.mean():.3f} dB, device {device_psnr.mean():.3f} dB, {test}")
    print(f"the same plan: {apart.mean():.4f} dB apart on average, {apart.max():.3f} at most")
    assert test.pvalue > 0.05
    assert apart.max() < 0.3


@needs_published
def test_the_published_pipeline_loses_the_same(crops, host_psnr, tmp_path):
    published = run_published(crops, SAMPLES, tmp_path)["psnr"]
    test = stats.ks_2samp(host_psnr, published)
    print(f"\nhost {host_psnr.mean():.3f} dB, published {published.mean():.3f} dB, {test}")
    assert test.pvalue > 0.05


@needs_published
def test_a_core_degrades_three_times_as_many_pairs_as_the_published_pipeline(
    crops, plans, tmp_path
):
    cv2.setNumThreads(1)
    ratios = []
    for turn in range(5):
        published = run_published(crops, 40, tmp_path)["seconds"].mean()
        start = time.perf_counter()
        for i, plan in enumerate(plans[40 * turn : 40 * turn + 40]):
            degrade(crops[i % len(crops)], plan, CONFIG.scale)
        host = (time.perf_counter() - start) / 40
        ratios.append(published / host)
        print(f"\npublished {1 / published:.1f} pairs/s, host {1 / host:.1f}: {ratios[-1]:.2f}x")
    assert np.median(ratios) >= 3
