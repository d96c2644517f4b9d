"""The published training loop in PyTorch, on random numbers that are handed to it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from omgsr_jax.losses.augment import Augmentation
from omgsr_jax.training.config import TrainConfig

from .arrays import to_nchw
from .torch_judges import heads_of, make_judges

_REAL, _FAKE = 0.8, 0.0


class TorchTraining:
    """One device, one micro-batch a step.

    Args:
        base: the diffusers folder.
        encoder, backbone: adapters to start from.
        config: of the run. With model.precision "bf16" the backbone and the discriminator run under
            autocast and the VAE and the distance in fp32, as published.
        mid_timestep: where to step from.
        device: what to train on.
        perceptual: the paper's networks, for the paper's losses; None: the VAE's own encoder.
        everywhere: in bf16, the rest runs under autocast too, with frozen weights in bf16 and in
            channels-last layout. The published code does not.
        compiled: what computes goes through torch.compile.
    """

    def __init__(
        self,
        base: Path,
        encoder: Path,
        backbone: Path,
        config: TrainConfig,
        mid_timestep: int,
        *,
        device: str = "cpu",
        perceptual: Path | None = None,
        everywhere: bool = False,
        compiled: bool = False,
    ):
        import torch
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from peft import PeftModel

        from omgsr_jax import converted

        torch.manual_seed(0)
        self.config = config
        self.device = torch.device(device)
        self.is_bf16, self.everywhere = config.model.precision == "bf16", everywhere
        self.vae = AutoencoderKL.from_pretrained(base / "vae").requires_grad_(False)
        self.lora_vae = copy.deepcopy(self.vae)
        del self.lora_vae.decoder
        self.lora_vae.encoder = PeftModel.from_pretrained(
            self.lora_vae.encoder, str(encoder), is_trainable=True
        )
        unet = UNet2DConditionModel.from_pretrained(base / "unet").requires_grad_(False)
        self.unet = PeftModel.from_pretrained(unet, str(backbone), is_trainable=True)
        self.judges = make_judges(self.vae, config, perceptual)
        scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
        self.alpha_bar = float(scheduler.alphas_cumprod[mid_timestep])
        self.t_m = mid_timestep
        context = converted.read_prompt(config.model.path)["context"]
        self.context = torch.from_numpy(np.array(context, np.float32))[None].to(self.device)
        self._place()
        if compiled:
            for owner, name in ((self, "_encode"), (self, "_restored"), (self.judges, "logits"),
                                (self.judges, "distance")):  # fmt: skip
                setattr(owner, name, torch.compile(getattr(owner, name)))

        adapters = [*self.lora_vae.encoder.parameters(), *self.unet.parameters()]
        self.trained = {
            "generator": [weight for weight in adapters if weight.requires_grad],
            "discriminator": list(self.judges.heads.parameters()),
        }
        o = config.optimizer
        self.optimizers = {
            name: torch.optim.AdamW(
                weights, o.learning_rate, (o.beta1, o.beta2), o.epsilon, o.weight_decay
            )
            for name, weights in self.trained.items()
        }
        warmup = 0 if config.quirks else o.warmup
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
        x_l, x_h = self._placed(batch["lr"]), self._placed(batch["hr"])
        for_z_l, for_z_h, eps = (self._placed(n) for n in noise)
        with torch.no_grad():
            z_t = self.alpha_bar**0.5 * self._encode(self.vae, x_h, for_z_h)
            z_t = z_t + (1 - self.alpha_bar) ** 0.5 * eps
        z_l = self._encode(self.lora_vae, x_l, for_z_l)
        x_p = self._restored(z_l)
        perceptual = next(name for name in ("features", "oc_lpips") if getattr(weights, name))
        with self._autocast(published=False):
            distance = self.judges.distance(x_p, x_h)
        terms = {
            "ldr": torch.nn.functional.mse_loss(z_l, z_t),
            "mse": torch.nn.functional.mse_loss(x_p, x_h),
            perceptual: distance,
            "gan": self._judged(x_p, augmentations[0], _REAL),
        }
        total = sum(getattr(weights, name) * loss for name, loss in terms.items())
        torch.as_tensor(total).backward()
        self._update("generator")
        if not self.config.quirks:
            self.optimizers["discriminator"].zero_grad()
        looks = [(x_h, augmentations[1], _REAL), (x_p.detach(), augmentations[2], _FAKE)]
        if self.config.quirks == "v2":  # each look advances the spectral norms
            looks.reverse()
        terms["discriminator"] = sum(self._judged(*look) for look in looks)
        (weights.gan * terms["discriminator"]).backward()
        self._update("discriminator")
        for schedule in self.schedules:
            schedule.step()
        found = {name: float(loss.detach()) for name, loss in terms.items()}
        if self.config.quirks:  # ours is the loss whose gradient is applied
            found["discriminator"] += found["gan"]
        return found

    def heads(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The heads' weights and their power iterations' vectors, under our names."""
        return heads_of(self.judges.heads)

    def save_adapters(self, folder: Path) -> tuple[Path, Path]:
        self.lora_vae.encoder.save_pretrained(str(folder / "encoder"))
        self.unet.save_pretrained(str(folder / "backbone"))
        return folder / "encoder", folder / "backbone"

    def _place(self) -> None:
        """Everything on the device; what is frozen in the layout and precision to compute in."""
        import torch

        frozen = [self.vae, self.lora_vae, self.unet, *self.judges.frozen]
        for network in (*frozen, self.judges.heads):
            network.to(self.device)
        if self.is_bf16 and self.everywhere:
            for network in frozen:
                network.to(memory_format=torch.channels_last)
                for weight in network.parameters():
                    if not weight.requires_grad:
                        weight.data = weight.data.to(torch.bfloat16)

    def _placed(self, array: np.ndarray) -> Any:
        return to_nchw(array).to(self.device)

    def _autocast(self, *, published: bool) -> Any:
        """bf16 where the published code has it, or everywhere."""
        import torch

        enabled = self.is_bf16 and (published or self.everywhere)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _encode(self, vae: Any, x: Any, noise: Any) -> Any:
        with self._autocast(published=False):
            posterior = vae.encode(x).latent_dist
        return (posterior.mean.float() + posterior.std.float() * noise) * vae.config.scaling_factor

    def _restored(self, z_l: Any) -> Any:
        context = self.context.expand(len(z_l), -1, -1)
        with self._autocast(published=True):
            prediction = self.unet(z_l, self.t_m, encoder_hidden_states=context).sample.float()
        z_p = (z_l - (1 - self.alpha_bar) ** 0.5 * prediction) / self.alpha_bar**0.5
        with self._autocast(published=False):
            decoded = self.vae.decode(z_p / self.vae.config.scaling_factor).sample.float()
        return decoded.clamp(-1, 1)

    def _judged(self, x: Any, sampled: Augmentation, label: float) -> Any:
        from torch.nn.functional import binary_cross_entropy_with_logits

        with self._autocast(published=True):
            levels = [logits.float() for logits in self.judges.logits(_augmented(x, sampled))]
        loss: Any = 0
        for logits in levels:
            target = logits.new_full((), label).expand_as(logits)
            loss = loss + binary_cross_entropy_with_logits(logits, target)
        return loss

    def _update(self, name: str) -> None:
        import torch

        torch.nn.utils.clip_grad_norm_(self.trained[name], self.config.optimizer.clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def _augmented(x: Any, sampled: Augmentation) -> Any:
    """DiffAugment: colour, translation by indexing, cut-out."""
    import torch

    brightness, saturation, contrast = (
        torch.from_numpy(np.array(value)).to(x).view(-1, 1, 1, 1) for value in sampled[:3]
    )
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    grey = x.mean((1, 2, 3), keepdim=True)
    x = (x - grey) * contrast + grey
    _, _, h, w = x.shape
    rows, columns = (torch.arange(n, device=x.device) for n in (h, w))
    images = []
    for image, shift, hole in zip(x, np.array(sampled.shift), np.array(sampled.hole), strict=True):
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
