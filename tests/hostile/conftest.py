"""Small whole models, of which the cases damage copies."""

from pathlib import Path

import pytest

from . import models


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> tuple[Path, Path]:
    """A converted model with adapters, and the folder that it is exported to."""
    return models.write_originals(tmp_path_factory.mktemp("originals"))
