"""Comparing a network with its PyTorch counterpart, block by block.

Modules have the same names on both sides, so every module's output can be compared with its
namesake's, in the order in which PyTorch computes them; the first one that differs is the culprit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from omgsr_jax.weights import weight_name

from .arrays import relative_error


@dataclass(frozen=True)
class BlockError:
    name: str
    error: float


def block_outputs(
    model: nnx.Module, run: Callable[..., Any], *args: Any
) -> tuple[Any, dict[str, np.ndarray]]:
    """`run(model, *args)`, jitted, and what each module of `model` put out on the way."""
    graph, state = nnx.split(model)

    @jax.jit
    def traced(state: nnx.State, *args: Any) -> tuple[Any, dict[str, jax.Array]]:
        merged = nnx.merge(graph, state)
        with _recording(merged) as outputs:
            result = run(merged, *args)
        return result, outputs

    result, outputs = traced(state, *args)
    return result, {name: np.asarray(value) for name, value in outputs.items()}


@contextmanager
def _recording(model: nnx.Module) -> Iterator[dict[str, jax.Array]]:
    """Notes the output of every module of `model` that puts out one array."""
    names = {id(module): weight_name(path) for path, module in nnx.iter_modules(model)}
    kinds = {type(module) for _, module in nnx.iter_modules(model)}
    originals = {kind: kind.__call__ for kind in kinds if "__call__" in vars(kind)}
    outputs: dict[str, jax.Array] = {}

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            output = original(module, *args, **kwargs)
            # In PyTorch a norm and the SiLU behind it are two modules: the norm alone is noted.
            noted = original(module, *args) if kwargs.get("silu") else output
            if isinstance(noted, jax.Array) and id(module) in names:
                outputs[names[id(module)]] = noted
            return output

        return call

    try:
        for kind, original in originals.items():
            setattr(kind, "__call__", watched(original))  # noqa: B010
        yield outputs
    finally:
        for kind, original in originals.items():
            setattr(kind, "__call__", original)  # noqa: B010


def compare_blocks(
    ours: dict[str, np.ndarray], module: Any, run: Callable[[], Any], *, prefix: str = ""
) -> list[BlockError]:
    """The error of each block of ours against a torch module's, in the order of computation.

    What is given more tokens on one side than on the other is passed over: Z-Image fills sequences
    up before some layers in PyTorch, and behind them here.
    """
    import torch

    errors: list[BlockError] = []

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def compare(child: Any, _: Any, output: Any) -> None:
            is_compared = name in ours and isinstance(output, torch.Tensor)
            if is_compared and output.numel() == ours[name].size:
                by_head = type(child).__name__.endswith("RMSNorm")  # b n k d, whoever wrote it
                channels_first = isinstance(child, torch.nn.GroupNorm) or (
                    output.ndim == 4 and not by_head
                )
                channels_last = output.movedim(1, -1) if channels_first else output
                theirs = channels_last.float().numpy().reshape(ours[name].shape)
                errors.append(BlockError(name, relative_error(ours[name], theirs)))

        return compare

    handles = [
        child.register_forward_hook(hook(name.removeprefix(prefix)))
        for name, child in module.named_modules()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return errors


def first_divergent(errors: list[BlockError], tolerance: float) -> BlockError | None:
    return next((block for block in errors if not block.error <= tolerance), None)
