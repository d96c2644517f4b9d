"""The published training loop in PyTorch, on random numbers that are handed to it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from omgsr_jax.losses.augment import Augmentation
from omgsr_jax.training.config import TrainConfig

from .parity import to_nchw

_REAL, _FAKE = 0.8, 0.0


class TorchTraining:
    """One device, one micro-batch a step; heads as towers on the VAE's own encoder."""

    def __init__(
        self, base: Path, encoder: Path, backbone: Path, config: TrainConfig, mid_timestep: int
    ):
        import torch
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from peft import PeftModel

        from omgsr_jax import checkpoint

        torch.manual_seed(0)
        self.config = config
        self.vae = AutoencoderKL.from_pretrained(base / "vae").requires_grad_(False)
        self.lora_vae = copy.deepcopy(self.vae)
        self.lora_vae.encoder = PeftModel.from_pretrained(
            self.lora_vae.encoder, str(encoder), is_trainable=True
        )
        unet = UNet2DConditionModel.from_pretrained(base / "unet").requires_grad_(False)
        self.unet = PeftModel.from_pretrained(unet, str(backbone), is_trainable=True)
        self.towers = _towers(self.vae, config)
        scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
        self.alpha_bar = scheduler.alphas_cumprod[mid_timestep]
        self.t_m = mid_timestep
        context = checkpoint.read_prompt(config.model.path)["context"]
        self.context = torch.from_numpy(np.array(context, np.float32))[None]

        adapters = [*self.lora_vae.encoder.parameters(), *self.unet.parameters()]
        self.trained = {
            "generator": [weight for weight in adapters if weight.requires_grad],
            "discriminator": list(self.towers.parameters()),
        }
        o = config.optimizer
        self.optimizers = {
            name: torch.optim.AdamW(
                weights, o.learning_rate, (o.beta1, o.beta2), o.epsilon, o.weight_decay
            )
            for name, weights in self.trained.items()
        }
        warmup = 0 if config.published else o.warmup
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda n: min(1.0, n / warmup) if warmup else 1.0
            )
            for optimizer in self.optimizers.values()
        ]

    def step(
        self,
        batch: dict[str, np.ndarray],
        noise: list[np.ndarray],
        augmentations: list[Augmentation],
    ) -> dict[str, float]:
        """One optimiser step; the losses before it, unweighted."""
        import torch

        weights = self.config.losses
        x_l, x_h = to_nchw(batch["lr"]), to_nchw(batch["hr"])
        for_z_l, for_z_h, eps = (to_nchw(n) for n in noise)
        with torch.no_grad():
            z_t = self.alpha_bar.sqrt() * self._encode(self.vae, x_h, for_z_h)
            z_t = z_t + (1 - self.alpha_bar).sqrt() * eps
        z_l = self._encode(self.lora_vae, x_l, for_z_l)
        x_p = self._restored(z_l)
        terms = {
            "ldr": torch.nn.functional.mse_loss(z_l, z_t),
            "mse": torch.nn.functional.mse_loss(x_p, x_h),
            "features": self._feature_distance(x_p, x_h),
            "gan": self._judged(x_p, augmentations[0], _REAL),
        }
        total = sum(getattr(weights, name) * loss for name, loss in terms.items())
        torch.as_tensor(total).backward()
        self._update("generator")
        if not self.config.published:
            self.optimizers["discriminator"].zero_grad()
        fake = x_p.detach()
        terms["discriminator"] = self._judged(x_h, augmentations[1], _REAL) + self._judged(
            fake, augmentations[2], _FAKE
        )
        (weights.gan * terms["discriminator"]).backward()
        self._update("discriminator")
        for schedule in self.schedules:
            schedule.step()
        found = {name: float(loss) for name, loss in terms.items()}
        if self.config.published:  # ours is the loss whose gradient is applied
            found["discriminator"] += found["gan"]
        return found

    def heads(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The heads' weights and their power iterations' vectors, under our names."""
        weights, vectors = {}, {}
        for name, layer in self.towers.named_modules():
            if hasattr(layer, "weight_u"):
                key = f"heads.decoders.{name}"
                v = layer.weight_v.reshape(layer.weight_orig.shape[1:]).permute(1, 2, 0)
                vectors[f"{key}.u"] = layer.weight_u.numpy().copy()
                vectors[f"{key}.v"] = v.reshape(-1).numpy().copy()
                kernel = layer.weight_orig.detach().permute(2, 3, 1, 0)
                weights[f"{key}.kernel"] = kernel.numpy().copy()
                weights[f"{key}.bias"] = layer.bias.detach().numpy().copy()
        return weights, vectors

    def save_adapters(self, folder: Path) -> tuple[Path, Path]:
        self.lora_vae.encoder.save_pretrained(str(folder / "encoder"))
        self.unet.save_pretrained(str(folder / "backbone"))
        return folder / "encoder", folder / "backbone"

    def _encode(self, vae: Any, x: Any, noise: Any) -> Any:
        posterior = vae.encode(x).latent_dist
        return (posterior.mean + posterior.std * noise) * vae.config.scaling_factor

    def _restored(self, z_l: Any) -> Any:
        context = self.context.expand(len(z_l), -1, -1)
        prediction = self.unet(z_l, self.t_m, encoder_hidden_states=context).sample
        z_p = (z_l - (1 - self.alpha_bar).sqrt() * prediction) / self.alpha_bar.sqrt()
        return self.vae.decode(z_p / self.vae.config.scaling_factor).sample.clamp(-1, 1)

    def _feature_distance(self, x: Any, y: Any) -> Any:
        import torch

        levels = []
        for a, b in zip(_maps(self.vae, x), _maps(self.vae, y), strict=True):
            a, b = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (a, b))
            levels.append((a - b).square().sum(1).mean())
        return torch.stack(levels).mean()

    def _judged(self, x: Any, drawn: Augmentation, label: float) -> Any:
        from torch.nn.functional import binary_cross_entropy_with_logits

        maps = _maps(self.vae, _augmented(x, drawn))
        loss: Any = 0
        for level, tower in zip(self.config.discriminator.levels, self.towers, strict=True):
            logits = tower(maps[level])
            loss = loss + binary_cross_entropy_with_logits(logits, logits.new_full((), label)
                                                           .expand_as(logits))  # fmt: skip
        return loss

    def _update(self, name: str) -> None:
        import torch

        torch.nn.utils.clip_grad_norm_(self.trained[name], self.config.optimizer.clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def _maps(vae: Any, x: Any) -> list[Any]:
    """What each block of the encoder puts out."""
    x = vae.encoder.conv_in(x)
    found = []
    for block in (*vae.encoder.down_blocks, vae.encoder.mid_block):
        x = block(x)
        found.append(x)
    return found


def _towers(vae: Any, config: TrainConfig) -> Any:
    """Layout 64: blur, convolution, leaky ReLU, blur, 1x1 convolution on each level."""
    import torch
    from torch import nn
    from torch.nn.utils import spectral_norm

    class Blur(nn.Module):
        def forward(self, x: Any) -> Any:
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            kernel = torch.outer(taps, taps).repeat(x.shape[1], 1, 1, 1)
            return nn.functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])

    image = torch.zeros(1, 3, config.data.resolution, config.data.resolution)
    widths = [m.shape[1] for m in _maps(vae, image)]
    return nn.ModuleList(
        nn.Sequential(
            Blur(),
            spectral_norm(nn.Conv2d(widths[level], widths[level], 3, padding=1)),
            nn.LeakyReLU(0.2),
            Blur(),
            spectral_norm(nn.Conv2d(widths[level], 1, 1)),
        )
        for level in config.discriminator.levels
    )


def _augmented(x: Any, drawn: Augmentation) -> Any:
    """DiffAugment: colour, translation by indexing, cut-out."""
    import torch

    brightness, saturation, contrast = (
        torch.from_numpy(np.array(value)).view(-1, 1, 1, 1) for value in drawn[:3]
    )
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    grey = x.mean((1, 2, 3), keepdim=True)
    x = (x - grey) * contrast + grey
    _, _, h, w = x.shape
    rows, columns = torch.arange(h), torch.arange(w)
    images = []
    for image, shift, hole in zip(x, np.array(drawn.shift), np.array(drawn.hole), strict=True):
        down, right = (int(n) for n in shift)
        inside = ((rows - down >= 0) & (rows - down < h))[:, None] & (
            (columns - right >= 0) & (columns - right < w)
        )
        moved = image[:, (rows - down).clamp(0, h - 1)][:, :, (columns - right).clamp(0, w - 1)]
        top, left = (int(c) - int(n * 0.5 + 0.5) // 2 for c, n in zip(hole, (h, w), strict=True))
        cut = ((rows >= top) & (rows < top + int(h * 0.5 + 0.5)))[:, None] & (
            (columns >= left) & (columns < left + int(w * 0.5 + 0.5))
        )
        images.append(moved * (inside & ~cut))
    return torch.stack(images)
