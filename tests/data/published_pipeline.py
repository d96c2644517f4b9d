"""Runs the published PyTorch degradation, in a process of its own, for comparison.

    python tests/data/published_pipeline.py CHECKOUT CROPS.npy COUNT OUT.npz

CHECKOUT is a checkout of the published repository. CROPS.npy holds n h w 3 uint8 crops; sample i
degrades crop i mod n. OUT.npz gets `psnr` and `seconds`, one entry for each sample. Where
torchvision is not installed, the one function of it that the degradation calls is supplied.
"""

import random
import sys
import time
import types

import numpy as np
import torch


def supply_torchvision() -> None:
    def rgb_to_grayscale(image: torch.Tensor, num_output_channels: int = 1) -> torch.Tensor:
        assert num_output_channels == 1
        red, green, blue = image.unbind(dim=-3)
        return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)

    unused = ("adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation")
    for name in (
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.functional",
        "torchvision.transforms._functional_tensor",
    ):
        module = types.ModuleType(name)
        module.__dict__.update({"rgb_to_grayscale": rgb_to_grayscale, **dict.fromkeys(unused)})
        sys.modules[name] = module


def main(checkout: str, crops_file: str, count: int, output: str) -> None:
    try:
        import torchvision  # noqa: F401
    except ImportError:
        supply_torchvision()
    sys.path.insert(0, checkout)
    from dataset.realesrgan import RealESRGAN_degradation

    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    crops = np.load(crops_file)
    published = RealESRGAN_degradation(resolution=crops.shape[1], device="cpu")
    psnr, seconds = [], []
    for i in range(count):
        start = time.perf_counter()
        hr, lr = published.degrade_process(crops[i % len(crops)] / 255.0, resize_bak=True)
        seconds.append(time.perf_counter() - start)
        psnr.append(-10 * np.log10(np.mean((hr - lr).numpy().astype(np.float64) ** 2)))
    np.savez(output, psnr=psnr, seconds=seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
