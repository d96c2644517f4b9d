"""The tiled forward pass of the paper in PyTorch, written for the tests."""

import numpy as np
import torch

from conversion.parity.arrays import to_nchw, to_nhwc
from conversion.parity.inference import TorchPipeline


def torch_tiled(
    pipeline: TorchPipeline, x_l: np.ndarray, tile: int, y_middle: float, overlap: int | None = None
):
    """The tiled forward pass of the paper, one image, 1 h w 3; tiles overlap by half of them."""
    with torch.no_grad():
        z_l = pipeline.encode(to_nchw(x_l))
        stride = tile - (tile // 2 if overlap is None else overlap)
        position = torch.arange(tile, dtype=torch.float64)
        rows, columns = (
            torch.exp(-((position - middle) ** 2) / tile**2 / 0.02)
            for middle in (y_middle, (tile - 1) / 2)
        )
        weights = torch.outer(rows, columns)
        noise = torch.zeros_like(z_l, dtype=torch.float64)
        total = torch.zeros(z_l.shape[2:], dtype=torch.float64)
        h, w = z_l.shape[2:]
        tops, lefts = (sorted({*range(0, side - tile, stride), side - tile}) for side in (h, w))
        for top in tops:
            for left in lefts:
                window = np.s_[..., top : top + tile, left : left + tile]
                noise[window] += pipeline.predict(z_l[window]) * weights
                total[window[-2:]] += weights
        z_p = pipeline.predictor.clean(z_l, (noise / total).float())
        image = pipeline.decode(z_p)
    return to_nhwc(image)[0]
