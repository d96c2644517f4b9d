"""Resizing is PyTorch's, for more and for fewer pixels."""

import numpy as np
import pytest
import torch
from torch import nn

from omgsr_jax.models.ops.resize import area_matrix, bicubic_matrix


@pytest.mark.parametrize(("old", "new"), [(37, 16), (37, 36), (16, 37), (8, 8)])
def test_bicubic_resizing_agrees_with_pytorch(old, new):
    x = torch.randn(1, 1, 1, old, dtype=torch.float64)
    expected = nn.functional.interpolate(x, size=(1, new), mode="bicubic", align_corners=False)
    ours = bicubic_matrix(old, new, new / old) @ x[0, 0, 0].numpy()
    np.testing.assert_allclose(ours, expected[0, 0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(512, 518), (518, 512), (10, 3), (7, 7)])
def test_area_resizing_agrees_with_pytorch(old, new):
    x = torch.randn(1, 1, 1, old, dtype=torch.float64)
    expected = nn.functional.interpolate(x, size=(1, new), mode="area")
    np.testing.assert_allclose(
        area_matrix(old, new) @ x[0, 0, 0].numpy(), expected[0, 0, 0].numpy(), atol=1e-12
    )
