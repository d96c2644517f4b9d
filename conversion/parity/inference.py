"""Comparing the whole of inference with the published pipeline, stage by stage."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from omgsr_jax import converted
from omgsr_jax.generator import OMGSR
from omgsr_jax.inference.prepare import for_inference

from .. import backbones, peft_adapters
from ..diffusers_folder import DiffusersFolder
from . import torch_backbones
from .arrays import psnr, relative_error, to_nchw, to_nhwc
from .processes import in_own_process

STAGES = ("encode", "backbone", "z_P", "decode")


class TorchPipeline:
    """The published inference, in PyTorch: adapters merged, posterior mode, one step, no tiles.

    Args:
        base, adapter: the folders that were converted.
        mid_timestep, prompt: those of the converted model.
        published: tell FLUX its time with the published rounding to bf16.
    """

    def __init__(
        self,
        base: Path,
        adapter: Path | None,
        mid_timestep: int,
        prompt: Mapping[str, np.ndarray],
        *,
        published: bool = False,
    ):
        import torch
        from diffusers import AutoencoderKL
        from peft import PeftModel

        self.vae = AutoencoderKL.from_pretrained(base / "vae").eval()
        kind = backbones.of_folder(DiffusersFolder(str(base)))
        predictor = torch_backbones.PREDICTORS[kind.network]
        self.predictor = predictor(base, mid_timestep, published)
        if adapter:
            encoder, backbone = (
                str(peft_adapters.find_adapter(adapter, names))
                for names in (backbones.ENCODER_ADAPTERS, backbones.BACKBONE_ADAPTERS)
            )
            self.vae.encoder = PeftModel.from_pretrained(
                self.vae.encoder, encoder
            ).merge_and_unload()
            self.predictor.network = PeftModel.from_pretrained(
                self.predictor.network, backbone
            ).merge_and_unload()
        self.prompt = {
            name: torch.from_numpy(np.array(value, np.float32))[None]
            for name, value in prompt.items()
        }

    def cast(self, dtype: Any) -> "TorchPipeline":
        self.vae.to(dtype)
        self.predictor.network.to(dtype)
        return self

    def encode(self, x: Any) -> Any:
        """Images to scaled latents, b c h w."""
        config = self.vae.config
        mode = self.vae.encode(x.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return (mode - (config.shift_factor or 0)) * config.scaling_factor

    def predict(self, z_l: Any) -> Any:
        prompt = {name: value.to(z_l) for name, value in self.prompt.items()}
        prompt = {name: v.expand(len(z_l), *v.shape[1:]) for name, v in prompt.items()}
        return self.predictor(z_l, **prompt)

    def decode(self, z_p: Any) -> Any:
        config = self.vae.config
        z = z_p / config.scaling_factor + (config.shift_factor or 0)
        return self.vae.decode(z).sample.clamp(-1, 1)

    def stages(self, x_l: np.ndarray) -> dict[str, np.ndarray]:
        """Every stage's result for images b h w 3."""
        import torch

        with torch.no_grad():
            z_l = self.encode(to_nchw(x_l))
            prediction = self.predict(z_l)
            z_p = self.predictor.clean(z_l, prediction)
            image = self.decode(z_p)
        values = (z_l, prediction, z_p, image)
        return dict(zip(STAGES, map(to_nhwc, values), strict=True))

    def stages_in_bf16(self, x_l: np.ndarray) -> dict[str, np.ndarray]:
        """The same as hardware with bf16 units computes it; the weights stay rounded afterwards.

        Weights and the result of every operation are rounded to bf16, sums are fp32. The errors
        are within a fifth of those of PyTorch's own bf16 kernels (measured on the tiny preset),
        which take an hour per image on CPUs without bf16 units.
        """
        with _rounding_to_bf16():
            for weight in (*self.vae.parameters(), *self.predictor.network.parameters()):
                weight.data = weight.data.bfloat16().float()
            return self.stages(x_l)


@contextmanager
def _rounding_to_bf16() -> Iterator[None]:
    """Rounds what every torch function returns to bf16."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_map

    def rounded(value: Any) -> Any:
        is_real = isinstance(value, torch.Tensor) and value.dtype == torch.float32
        return value.bfloat16().float() if is_real else value

    class Rounding(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return tree_map(rounded, function(*args, **(kwargs or {})))

    with Rounding():
        yield


def jax_stages(model: OMGSR, x_l: np.ndarray) -> dict[str, np.ndarray]:
    """Every stage's result of a generator whose adapters are merged, one program per stage."""
    graph, state = nnx.split(model)

    def stage(function: Callable[..., jax.Array], *args: Any) -> jax.Array:
        return jax.jit(lambda state, *args: function(nnx.merge(graph, state), *args))(state, *args)

    z_l = stage(lambda m, x: m.encode(x), jnp.asarray(x_l))
    prediction = stage(lambda m, z: m.predict(z), z_l)
    z_p = stage(lambda m, z, eps: m.process.clean(z, eps, m.t_m), z_l, prediction)
    image = stage(lambda m, z: m.decode(z), z_p)
    values = (z_l, prediction, z_p, image)
    return {name: np.asarray(value, np.float32) for name, value in zip(STAGES, values, strict=True)}


@dataclass(frozen=True)
class StageResults:
    """Every stage's result by who computed it: torch_fp64, torch_fp32, fp32 (JAX), and in bf16."""

    results: dict[str, dict[str, np.ndarray]]

    def errors(self, who: str, reference: str) -> dict[str, float]:
        """Relative errors per stage; each stage inherits those of the stages before it."""
        ours, theirs = self.results[who], self.results[reference]
        return {stage: relative_error(ours[stage], theirs[stage]) for stage in STAGES}

    def psnr(self, who: str, reference: str) -> float:
        """Of the final images, in dB."""
        return psnr(self.results[who]["decode"], self.results[reference]["decode"])


def compare_stages(
    base: Path,
    adapter: Path | None,
    model_folder: Path,
    x_l: np.ndarray,
    precisions: Sequence[str] = ("fp32", "bf16"),
) -> StageResults:
    """Runs PyTorch and JAX, one after the other, on the same weights and images (b h w 3).

    PyTorch runs in fp64 too: only that can tell which of two fp32 results is the better one.
    """
    results = in_own_process(_torch_results, base, adapter, model_folder, x_l, precisions)
    for precision in precisions:
        with jax.default_matmul_precision("highest" if precision == "fp32" else "default"):
            model = for_inference(converted.read(model_folder), precision)
            results[precision] = jax_stages(model, x_l)
        del model
        gc.collect()
    return StageResults(results)


def _torch_results(
    base: Path,
    adapter: Path | None,
    model_folder: Path,
    x_l: np.ndarray,
    precisions: Sequence[str],
) -> dict[str, dict[str, np.ndarray]]:
    import torch

    mid_timestep = converted.read_card(model_folder).generator.mid_timestep
    pipeline = TorchPipeline(base, adapter, mid_timestep, converted.read_prompt(model_folder))
    results = {
        "torch_fp32": pipeline.stages(x_l),
        "torch_fp64": pipeline.cast(torch.float64).stages(x_l),
    }
    if "bf16" in precisions:
        results["torch_bf16"] = pipeline.cast(torch.float32).stages_in_bf16(x_l)
    return results
