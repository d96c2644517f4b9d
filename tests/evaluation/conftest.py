"""Published scores to check against, and small folders of images."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from omgsr_jax.evaluation import niqe

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data() -> Path:
    """Benchmark images and published scores: not ours to distribute."""
    folder = Path(os.environ.get("OMGSR_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "metric_golden").is_dir():
        pytest.skip(f"no metric_golden in {folder}; set OMGSR_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def published(data) -> dict[str, dict[str, float]]:
    """Image name -> published scores of OSEDiff on RealSR, for the images that we have."""
    with (data / "metric_golden" / "osediff_realsr.csv").open() as file:
        rows = {row.pop("image"): row for row in csv.DictReader(file)}
    names = sorted(path.stem for path in (data / "metric_golden" / "osediff_realsr").glob("*.png"))
    assert len(names) == 20
    return {name: {key: float(value) for key, value in rows[name].items()} for name in names}


@pytest.fixture
def pristine() -> niqe.Pristine:
    """Parameters of the right form, not of photographs: enough for everything but the values."""
    return niqe.Pristine(np.linspace(0.1, 3, 36), np.diag(np.linspace(0.01, 1, 36)))


@pytest.fixture
def niqe_file(pristine, tmp_path) -> Path:
    path = tmp_path / "niqe_pris_params.npz"
    np.savez(path, mu_pris_param=pristine.mean[None], cov_pris_param=pristine.cov)
    return path
