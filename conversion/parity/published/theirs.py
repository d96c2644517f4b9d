"""The published training `main()` on given numbers, and what it did.

Its config is the checkout's own, with the changes that a `Task` names. Its random numbers come from
a file; its networks' first weights are its own, and are noted when it has prepared them.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..torch_judges import heads_of
from . import stand_ins
from .checkout import Checkout
from .networks import Hub, dists

Arrays = dict[str, np.ndarray]
_DRAWN_BY = {  # the module of DiffAugment
    "v1": "vision_aided_loss_v2.DiffAugment_pytorch",
    "v2": "dinov3_gan.dinov3_convnext_disc",
}


@dataclass(frozen=True)
class Task:
    """Args:
    script: "train s" or "train f".
    config: file of the checkout that is changed, and how.
    numbers: .npz with the arrays of every micro-batch: lr, hr (b h w 3), z_h, eps, z_l (b h w c),
        and for each look at the discriminator g, real, fake the arguments of DiffAugment.
    weights: folder of judges.py.
    out: where adapters are written: before/ and after/.
    """

    script: str
    config: str
    changes: dict[str, Any]
    micro_batches: int
    numbers: Path
    weights: Path
    out: Path


@dataclass(frozen=True)
class Theirs:
    logs: list[dict[str, float]]  # of every micro-batch, weighted
    totals: list[tuple[float, float]]  # the generator's loss and the discriminator's
    before: tuple[Arrays, Arrays]  # the heads and their singular vectors
    after: tuple[Arrays, Arrays]


def train(checkout: Checkout, task: Task) -> Theirs:
    """Runs in a process of its own, which it changes."""
    import torch

    stand_ins.enter(checkout)
    with np.load(task.numbers) as stored:
        numbers = {name: stored[name] for name in stored.files}
    _give_pairs(checkout, task, numbers)
    torch.hub = Hub(checkout, task.weights)  # type: ignore[assignment]
    _give_dists(task)
    module, record = checkout.load(task.script), _Record(task.out)
    _give_noise(checkout, task, module, numbers)
    module.Accelerator = _recording(record)
    if task.script == "train f":
        _keep_flux_in_fp32(checkout, module, rounded=task.changes["mixed_precision"] == "bf16")
    sys.argv = [task.script, "--config", str(_write_config(checkout, task))]
    with stand_ins.quiet():
        module.main()
    record.note("after")
    return Theirs(record.logs, record.totals, record.heads["before"], record.heads["after"])


class _Record:
    def __init__(self, out: Path):
        self.out = out
        self.logs: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.heads: dict[str, tuple[Arrays, Arrays]] = {}
        self._networks: tuple[Any, ...] = ()

    @property
    def totals(self) -> list[tuple[float, float]]:
        return list(zip(self.losses[::2], self.losses[1::2], strict=True))

    def prepared(self, networks: tuple[Any, ...]) -> None:
        self._networks = networks
        self.note("before")

    def note(self, when: str) -> None:
        lora_vae, backbone, discriminator = self._networks
        lora_vae.encoder.save_pretrained(str(self.out / when))
        backbone.save_pretrained(str(self.out / when))
        self.heads[when] = heads_of(_decoders(discriminator))


def _decoders(discriminator: Any) -> Any:
    """The trained part, whose layers have the names of ours."""
    if hasattr(discriminator, "decoders"):
        return discriminator.decoders
    return discriminator.decoder[0]


def _recording(record: _Record) -> type:
    from accelerate import Accelerator

    class Recording(Accelerator):
        """On the CPU and without autocast, whatever the config says."""

        def __init__(self, *, mixed_precision: str, **kwargs: Any):
            self._told = mixed_precision
            super().__init__(mixed_precision="no", cpu=True, **kwargs)

        @property
        def mixed_precision(self) -> str:
            return self._told

        def prepare(self, *objects: Any, **kwargs: Any) -> Any:
            found = super().prepare(*objects, **kwargs)
            record.prepared(found[:3])
            return found

        def backward(self, loss: Any, **kwargs: Any) -> None:
            record.losses.append(float(loss.detach()))
            super().backward(loss, **kwargs)

        def log(self, values: dict[str, float], *_: Any, **__: Any) -> None:
            record.logs.append(dict(values))

    return Recording


def _give_pairs(checkout: Checkout, task: Task, numbers: Arrays) -> None:
    """A data set that gives the pairs in turn, whichever index is asked for."""
    import torch

    pairs = iter([*_images(numbers["lr"], numbers["hr"])])

    class PairedDataset(torch.utils.data.Dataset):
        def __init__(self, *_: Any):
            pass

        def __len__(self) -> int:
            return 10 * task.micro_batches  # the epoch does not end

        def __getitem__(self, _: int) -> Any:
            # One more is fetched than is trained on.
            return next(pairs, (torch.zeros(1), torch.zeros(1)))

    module = ModuleType(checkout.data_module)
    module.__dict__.update(PairedDataset=PairedDataset)
    sys.modules[checkout.data_module] = module


def _images(*kinds: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """n b h w 3 of each kind, to pairs of 3 h w."""
    import torch

    for of_micro_batch in zip(*kinds, strict=True):
        for pair in zip(*of_micro_batch, strict=True):
            yield tuple(torch.from_numpy(x).permute(2, 0, 1).contiguous() for x in pair)


def _give_dists(task: Task) -> None:
    module = ModuleType("pyiqa")
    module.__dict__.update(create_metric=lambda *_, **__: dists(task.weights))
    sys.modules["pyiqa"] = module


def _give_noise(checkout: Checkout, task: Task, module: Any, numbers: Arrays) -> None:
    from diffusers.models.autoencoders import vae

    count = task.micro_batches
    z_h, z_l, eps = (numbers[name].transpose(0, 1, 4, 2, 3) for name in ("z_h", "z_l", "eps"))
    posteriors = stand_ins.Numbers(x[i] for i in range(count) for x in (z_h, z_l))
    noise = stand_ins.Numbers(iter(eps))
    vae.randn_tensor = lambda shape, **_: posteriors.next(shape).contiguous()
    module.torch = stand_ins.Injected(
        {"randn_like": lambda x: noise.next(x.shape).contiguous().to(x)}
    )
    order = ("g", "real", "fake") if checkout.version == "v1" else ("g", "fake", "real")
    looks = [(name, i) for i in range(count) for name in order]
    uniform = stand_ins.Numbers(
        numbers[f"{look}.{kind}"][i][:, None, None, None]
        for look, i in looks
        for kind in ("brightness", "saturation", "contrast")
    )
    whole = stand_ins.Numbers(
        numbers[f"{look}.{kind}"][i][:, axis, None, None]
        for look, i in looks
        for kind in ("shift", "hole")
        for axis in (0, 1)
    )
    __import__(_DRAWN_BY[checkout.version])
    sys.modules[_DRAWN_BY[checkout.version]].torch = stand_ins.Injected(  # type: ignore[attr-defined]
        {
            "rand": lambda *shape, **_: uniform.next(shape),
            "randint": lambda low, high, size, **_: whole.next(size),
        }
    )


def _keep_flux_in_fp32(checkout: Checkout, module: Any, *, rounded: bool) -> None:
    """The transformer computes in fp32; what goes into it and comes out of it may be bf16."""
    import torch
    from diffusers import FluxTransformer2DModel

    stored = torch.bfloat16 if rounded else torch.float32
    forward, load = FluxTransformer2DModel.forward, FluxTransformer2DModel.from_pretrained

    def in_fp32(self: Any, *, timestep: Any, **given: Any) -> Any:
        given = {
            name: value.float() if torch.is_tensor(value) else value
            for name, value in given.items()
        }
        (prediction,) = forward(self, timestep=stand_ins.as_in_bf16(timestep), **given)
        return (prediction.to(stored),)

    flux: Any = FluxTransformer2DModel
    flux.forward = in_fp32
    flux.from_pretrained = lambda *args, torch_dtype, **kwargs: load(*args, **kwargs)
    if checkout.version == "v2":
        module.encode_images.__defaults__ = (stored,)


def _write_config(checkout: Checkout, task: Task) -> Path:
    import yaml

    content = stand_ins.read_config(checkout.folder / task.config) | task.changes
    path = task.out / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return path
