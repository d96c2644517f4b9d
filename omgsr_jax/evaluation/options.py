"""What may be asked for, known without JAX."""

from collections.abc import Sequence

from ..errors import InputError

# The keys of the table in metrics.py, in its order.
METRICS = (
    *("psnr", "ssim", "lpips", "dists", "fid", "niqe", "musiq", "maniqa", "clipiqa"),
    *("psnr_rgb", "ssim_rgb", "lpips_vgg", "coherence", "coherence_fine", "grid"),
)


def require_metrics(keys: Sequence[str]) -> None:
    unknown = sorted(set(keys) - {*METRICS})
    if unknown:
        raise InputError(f"unknown metrics {', '.join(unknown)}; there are {', '.join(METRICS)}")
