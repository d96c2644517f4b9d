"""The backbones of inference in PyTorch: what differs between Stable Diffusion, FLUX and Z-Image.

Called with latents (b c h w) and the prompt, they give their prediction at the mid-timestep;
`clean` is the step from it to the clean latent.
"""

import math
from pathlib import Path
from typing import Any


class UNetPredictor:
    def __init__(self, base: Path, mid_timestep: int, published: bool):
        from diffusers import DDPMScheduler, UNet2DConditionModel

        self.network = UNet2DConditionModel.from_pretrained(base / "unet").eval()
        scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
        self.alpha_bar = scheduler.alphas_cumprod[mid_timestep]
        self.mid_timestep = mid_timestep

    def __call__(self, z_l: Any, *, context: Any) -> Any:
        return self.network(z_l, self.mid_timestep, encoder_hidden_states=context).sample

    def clean(self, z_l: Any, prediction: Any) -> Any:
        return (z_l - (1 - self.alpha_bar).sqrt() * prediction) / self.alpha_bar.sqrt()


class FluxPredictor:
    """With `published`, the network's time is rounded to bf16 before and after it is scaled."""

    def __init__(self, base: Path, mid_timestep: int, published: bool):
        import torch
        from diffusers import FluxTransformer2DModel

        self.network = FluxTransformer2DModel.from_pretrained(base / "transformer").eval()
        # 999 steps from 1 to 0, shifted as for 4096 tokens, counted from the end.
        unshifted = torch.linspace(1, 0, 1000)[-(mid_timestep + 1)]
        self.sigma = float(math.exp(1.15) / (math.exp(1.15) + (1 / unshifted - 1)))
        self.time = self.sigma
        if published:
            rounded = torch.tensor(self.sigma, dtype=torch.bfloat16) * 1000
            self.time = float(rounded) / 1000

    def __call__(self, z_l: Any, *, context: Any, pooled: Any) -> Any:
        import torch
        from diffusers import FluxPipeline

        b, c, h, w = z_l.shape
        tokens = self.network(
            hidden_states=FluxPipeline._pack_latents(z_l, b, c, h, w),
            timestep=torch.full((b,), self.time, dtype=z_l.dtype),
            guidance=torch.ones(b, dtype=z_l.dtype),
            pooled_projections=pooled,
            encoder_hidden_states=context,
            txt_ids=z_l.new_zeros(context.shape[1], 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(
                b, h // 2, w // 2, z_l.device, z_l.dtype
            ),
        ).sample
        return FluxPipeline._unpack_latents(tokens, 8 * h, 8 * w, 8)

    def clean(self, z_l: Any, prediction: Any) -> Any:
        return z_l - self.sigma * prediction


class ZImagePredictor:
    """As its pipeline calls it. No published code of OMGSR does, so there are no quirks of it."""

    def __init__(self, base: Path, mid_timestep: int, published: bool):
        import torch
        from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

        self.network = ZImageTransformer2DModel.from_pretrained(base / "transformer").eval()
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(base / "scheduler")
        # 999 steps from 1 to 0, counted from the end.
        scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 1000)[-(mid_timestep + 1), None])
        self.sigma = float(scheduler.sigmas[0])
        self.time = float((1000 - scheduler.timesteps[0]) / 1000)

    def __call__(self, z_l: Any, *, context: Any) -> Any:
        import torch

        frames = list(z_l.unsqueeze(2))  # c 1 h w
        time = torch.full((len(frames),), self.time, dtype=z_l.dtype)
        predicted = self.network(frames, time, list(context), return_dict=False)[0]
        return -torch.stack(predicted).squeeze(2)

    def clean(self, z_l: Any, prediction: Any) -> Any:
        return z_l - self.sigma * prediction


# By the class of diffusers that a folder's config names.
PREDICTORS: dict[str, Any] = {
    "UNet2DConditionModel": UNetPredictor,
    "FluxTransformer2DModel": FluxPredictor,
    "ZImageTransformer2DModel": ZImagePredictor,
}
