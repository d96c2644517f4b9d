"""What is timed for inference: ours, and PyTorch in its forms. Each lives in a process of its own.

PyTorch is diffusers and peft as the published inference builds them, with the posterior's mode. All
get one picture. Ours starts from its uint8 pixels; PyTorch from what enlarging them bicubically
gave, on the device, and the time that this takes is not in its own. Where an image is larger than
the process size, both predict in tiles that overlap by half, with Gaussian weights.
"""

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from omgsr_jax import converted
from omgsr_jax.cost import flops
from omgsr_jax.generator import OMGSR

from . import layer_kinds
from .arrays import to_nchw, to_nhwc
from .inference import TorchPipeline
from .inference_cases import OURS, SCALE, TORCH, Case, Form, Weights
from .workers import serve_methods

_TILES_AT_ONCE = 8
_VARIANCE = 0.01  # of the weights of a tile, in tiles


def serve(name: str, weights: Weights, precision: str, parent: Connection) -> None:
    """The life of a system's process. PyTorch has the GPU to itself."""
    if name == OURS:
        system: Ours | Theirs = Ours(weights, precision)
    else:
        jax.config.update("jax_platforms", "cpu")
        # Of its own: a process that is stopped while it compiles leaves half a program there.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(weights.model.parent / f"inductor-{name}")
        system = Theirs(weights, precision, TORCH[name])
    serve_methods(system, parent)


def picture(case: Case) -> np.ndarray:
    """Smooth noise, b h w 3, uint8: what is to be enlarged."""
    side = case.pixels // SCALE
    rng = np.random.default_rng(0)
    image = np.full((case.batch, side, side, 3), 127.5)
    for cells in (3, 9, 27):
        coarse = rng.uniform(-40, 40, (case.batch, cells, cells, 3))
        image += [_bicubic(one, side) for one in coarse]
    return np.clip(image, 0, 255).round().astype(np.uint8)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """uint8 to SCALE times as large, in [-1, 1]: b h w 3."""
    levels = pixels.astype(np.float32) / 255
    large = np.stack([_bicubic(one, one.shape[0] * SCALE) for one in levels])
    return np.clip(large, 0, 1) * 2 - 1


def _bicubic(image: np.ndarray, side: int) -> np.ndarray:
    """Of h w c, as PIL does it on fp32."""
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(image.shape[-1])]
    large = [plane.resize((side, side), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in large], axis=-1)


def flops_per_image(model: Path, pixels: int) -> float:
    """Of the networks' own products: encoder, decoder, and the backbone on every tile."""
    card = converted.read_card(model)
    generator = OMGSR(card.generator, rngs=None)
    vae = card.generator.vae
    side, tile = pixels // vae.downsampling, _tile(card.process_size, pixels, vae.downsampling)
    parts = [
        (lambda m, x: m.encode(x), (pixels, pixels, 3), 1),
        (lambda m, z: m.one_step(z), (tile, tile, vae.latent_channels), len(_corners(side, tile))),
        (lambda m, z: m.decode(z), (side, side, vae.latent_channels), 1),
    ]
    found = [(flops.forward_flops(generator, run, shape), times) for run, shape, times in parts]
    return sum((one.weights + one.attention) * times for one, times in found)


def _tile(process_size: int, pixels: int, downsampling: int) -> int:
    return min(process_size, pixels) // downsampling


def _corners(side: int, tile: int) -> list[tuple[int, int]]:
    """Of tiles that overlap by half; the last ones end with the latents."""
    starts = sorted({*range(0, side - tile, tile // 2), side - tile})
    return [(top, left) for top in starts for left in starts]


class Ours:
    def __init__(self, weights: Weights, precision: str):
        from omgsr_jax.inference.loading import load

        self.weights, self.precision = weights, precision
        self.upscaler = load(weights.model, precision=precision)

    def facts(self) -> dict[str, Any]:
        device = jax.local_devices()[0]
        return {
            "device": device.platform,
            "device_kind": device.device_kind,
            "version": f"jax {jax.__version__}",
        }

    def prepare(self, case: Case, output: Path) -> float:
        """Compiles, writes what the case gives, and returns the seconds of the first call."""
        self.case = case
        side = case.pixels // SCALE
        self.function = self.upscaler.function(
            (side, side), scale=SCALE, batch=case.batch, color="none"
        )
        self.given = jax.device_put(picture(case))
        started = time.perf_counter()
        result = jax.block_until_ready(self.function(self.given))
        seconds = time.perf_counter() - started
        np.save(output, np.asarray(result))
        return seconds

    def run(self) -> float:
        started = time.perf_counter()
        jax.block_until_ready(self.function(self.given))
        return time.perf_counter() - started

    def peak_gb(self) -> float | None:
        statistics = jax.local_devices()[0].memory_stats() or {}
        return _gigabytes(statistics.get("peak_bytes_in_use"))

    def profile(self, runs: int) -> dict[str, dict[str, float]]:
        """Of each stage, run apart: its seconds, and by kind of layer."""
        from flax import nnx

        from omgsr_jax.inference.prepare import for_inference

        model = for_inference(converted.read(self.weights.model), self.precision)
        graph, state = nnx.split(model)
        state = jax.device_put(state, jax.local_devices()[0])
        found = {}
        card = converted.read_card(self.weights.model)
        for stage, shape, times in _stages(card, self.case):
            method = {"predict": "one_step"}.get(stage, stage)

            def function(state: Any, x: Any, method: str = method) -> Any:
                return getattr(nnx.merge(graph, state), method)(x)

            x = jax.device_put(_noise(shape))
            products = "highest" if self.precision == "fp32" and _on_gpu() else None
            with jax.default_matmul_precision(products):
                compiled = jax.jit(function).lower(state, x).compile()

            def run(compiled: Any = compiled, x: Any = x) -> Any:
                return jax.block_until_ready(compiled(state, x))

            found[stage] = _times(run, runs, times, layer_kinds.of_jax(compiled, run))
        return found


class Theirs:
    def __init__(self, weights: Weights, precision: str, form: Form):
        import torch

        self.form, self.on_gpu = form, torch.cuda.is_available()
        card = converted.read_card(weights.model)
        self.card = card
        prompt = converted.read_prompt(weights.model)
        pipeline = TorchPipeline(
            weights.base, weights.adapter, card.generator.mid_timestep, prompt
        ).cast(torch.bfloat16 if precision == "bf16" else torch.float32)
        for network in (pipeline.vae, pipeline.predictor.network):
            if self.on_gpu:
                network.cuda()
            if form.channels_last:
                network.to(memory_format=torch.channels_last)
        if form.compiled:
            vae, predictor = pipeline.vae, pipeline.predictor
            vae.encode = torch.compile(vae.encode, mode=form.compiled)
            vae.decode = torch.compile(vae.decode, mode=form.compiled)
            predictor.network = torch.compile(predictor.network, mode=form.compiled)
        self.pipeline = pipeline
        self.place: dict[str, Any] = {"device": pipeline.vae.device, "dtype": pipeline.vae.dtype}

    def facts(self) -> dict[str, Any]:
        import torch

        return {
            "device": "gpu" if self.on_gpu else "cpu",
            "device_kind": torch.cuda.get_device_name() if self.on_gpu else "cpu",
            "version": f"torch {torch.__version__}",
            "threads": torch.get_num_threads(),
        }

    def prepare(self, case: Case, output: Path) -> float:
        import torch

        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.case = case
        self.given = self._placed(to_nchw(enlarged(picture(case))))
        started = time.perf_counter()
        result = self._restored()
        self._finish()
        seconds = time.perf_counter() - started
        np.save(output, _levels(to_nhwc(result)))
        return seconds

    def run(self) -> float:
        self._finish()
        started = time.perf_counter()
        self._restored()
        self._finish()
        return time.perf_counter() - started

    def peak_gb(self) -> float | None:
        import torch

        return _gigabytes(torch.cuda.max_memory_allocated() if self.on_gpu else None)

    def profile(self, runs: int) -> dict[str, dict[str, float]]:
        import torch

        found = {}
        stages = {
            "encode": self.pipeline.encode,
            "predict": self._z_p,
            "decode": self.pipeline.decode,
        }
        for stage, shape, times in _stages(self.card, self.case):
            x = self._placed(to_nchw(_noise(shape)))

            def run(function: Callable[[Any], Any] = stages[stage], x: Any = x) -> None:
                with torch.no_grad():
                    self._step()
                    function(x)
                    self._finish()

            run()
            found[stage] = _times(run, runs, times, layer_kinds.of_pytorch(run))
        return found

    def _placed(self, tensor: Any) -> Any:
        import torch

        layout = torch.channels_last if self.form.channels_last else torch.contiguous_format
        return tensor.to(**self.place).contiguous(memory_format=layout)

    def _restored(self) -> Any:
        import torch

        with torch.no_grad():
            self._step()
            z_l = self._kept(self.pipeline.encode(self.given))
            z_p = self._predicted(z_l)
            self._step()
            return self.pipeline.decode(z_p.to(self.place["dtype"]))

    def _predicted(self, z_l: Any) -> Any:
        """z_P of whole images from that of their tiles."""
        import torch

        card = self.card
        tile = _tile(card.process_size, self.case.pixels, card.generator.vae.downsampling)
        corners = _corners(z_l.shape[-1], tile)
        if len(corners) == 1:
            return self._z_p(z_l)
        places = [
            np.s_[i, :, y : y + tile, x : x + tile] for i in range(len(z_l)) for y, x in corners
        ]
        offset = (torch.arange(tile, device=z_l.device) - (tile - 1) / 2) / tile
        profile = torch.exp(-offset.square() / (2 * _VARIANCE))
        weights = torch.outer(profile, profile)
        total, heavy = torch.zeros_like(z_l, dtype=torch.float32), torch.zeros_like(z_l[:, :1])
        heavy = heavy.float()
        for chunk in _chunks(places):
            tiles = torch.stack([z_l[place] for place in chunk])
            missing = _TILES_AT_ONCE - len(chunk)  # one shape, or torch.compile begins again
            tiles = torch.cat([tiles, tiles[:1].expand(missing, -1, -1, -1)])
            self._step()
            for place, z_p in zip(chunk, self._kept(self._z_p(self._placed(tiles))), strict=False):
                total[place] += z_p * weights
                heavy[place[0], :, place[2], place[3]] += weights
        return total / heavy

    def _z_p(self, z_l: Any) -> Any:
        return self.pipeline.predictor.clean(z_l, self.pipeline.predict(z_l))

    def _step(self) -> None:
        """What a CUDA graph gave before may be written over."""
        if self.form.compiled:
            import torch

            torch.compiler.cudagraph_mark_step_begin()

    def _kept(self, tensor: Any) -> Any:
        """Out of the memory of a CUDA graph, which the next one writes over."""
        return tensor.clone() if self.form.compiled else tensor

    def _finish(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()


def _stages(card: converted.ModelCard, case: Case) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Each stage's input, and how many calls of it a batch takes."""
    vae = card.generator.vae
    side = case.pixels // vae.downsampling
    tile = _tile(card.process_size, case.pixels, vae.downsampling)
    tiles = case.batch * len(_corners(side, tile))
    at_once = case.batch if tiles == case.batch else _TILES_AT_ONCE
    yield "encode", (case.batch, case.pixels, case.pixels, 3), 1
    yield "predict", (at_once, tile, tile, vae.latent_channels), math.ceil(tiles / at_once)
    yield "decode", (case.batch, side, side, vae.latent_channels), 1


def _times(
    run: Callable[[], Any], runs: int, times: float, kinds: dict[str, float]
) -> dict[str, float]:
    """The median of the runs, shared out by kind as the profiler saw it."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds)) * times
    seen = sum(kinds.values()) or 1.0
    shares = {kind: round(median * value / seen, 6) for kind, value in kinds.items()}
    return {"seconds": round(median, 6), **shares}


def _chunks(places: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(places), _TILES_AT_ONCE):
        yield places[start : start + _TILES_AT_ONCE]


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _levels(images: np.ndarray) -> np.ndarray:
    """[-1, 1] to uint8."""
    return np.clip(np.round((images * 0.5 + 0.5) * 255), 0, 255).astype(np.uint8)


def _on_gpu() -> bool:
    return jax.local_devices()[0].platform != "cpu"


def _gigabytes(device_bytes: int | None) -> float:
    """The device's, or on a CPU the process's own."""
    if device_bytes is None:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        device_bytes = most if sys.platform == "darwin" else most * 1024
    return round(device_bytes / 1e9, 3)
