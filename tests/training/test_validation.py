"""Validation: how many images there are, and how many of them are shown."""

import numpy as np
import pytest

from omgsr_jax.training import validation


@pytest.mark.parametrize(("images", "shown", "rows"), [(2, 4, 2), (4, 2, 2), (3, 3, 3)])
def test_fewer_images_than_are_to_be_shown_are_shown_all(images, shown, rows):
    columns = [np.full((images, 4, 6, 3), value, np.float32) for value in (-1, 0, 1)]
    picture = validation._grid(*columns, count=shown)  # h w 3
    assert picture.shape == (rows * 4, 3 * 6, 3)
    assert picture[:, 0].max() == 0
    assert picture[:, -1].min() == 255
