"""Equal blocks one after the other, their weights stacked.

A program over a stack holds one block, whatever the depth: it compiles as fast for 57 blocks as for
6, and where weights are sharded, one block's at a time are gathered. The weights of all blocks
stand under one name, with a first axis as long as the stack is deep:

    transformer_blocks.each.attn.to_q.kernel (19 c c)  is  transformer_blocks.{0..18}.attn.to_q
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from .layers import Rngs, remat

EACH = "each"

# What goes from block to block.
Carry = tuple[Array, ...]


class Stack(nnx.Module):
    """Args:
    build: makes one block, which takes what goes from block to block, then what all of them see,
        and returns the former.
    depth: how many blocks.
    remat: keep only the blocks' inputs for the backward pass.

    `gather`, if set, brings the weights of one block together when its turn comes, from the devices
    over which those of the stack are divided.
    """

    gather: Callable[[nnx.State], nnx.State] | None = None

    def __init__(self, build: Callable[[Rngs], nnx.Module], depth: int, *, remat: bool, rngs: Rngs):
        blocks = [build(rngs) for _ in range(1 if rngs is None else depth)]
        graph, _ = nnx.split(blocks[0])

        def stacked(*leaves: Any) -> Any:
            if rngs is None:
                return jax.ShapeDtypeStruct((depth, *leaves[0].shape), leaves[0].dtype)
            return jnp.stack(leaves)

        self.each = nnx.merge(graph, jax.tree.map(stacked, *map(nnx.state, blocks)))
        self.remat = remat

    def __call__(self, carry: Carry, *shared: Any) -> Carry:
        graph, state = nnx.split(self.each)

        def block(carry: Carry, state: nnx.State) -> tuple[Carry, None]:
            if self.gather:
                state = self.gather(state)
            return nnx.merge(graph, state)(*carry, *shared), None

        # Within a scan nothing can be shared between forward and backward pass by accident.
        body = jax.checkpoint(block, prevent_cse=False) if self.remat else block
        return lax.scan(body, carry, state)[0]


class Sequence(nnx.List):
    """The same blocks with weights of their own, as PyTorch has them: to look at each of them."""

    def __init__(self, build: Callable[[Rngs], nnx.Module], depth: int, *, remat: bool, rngs: Rngs):
        super().__init__([build(rngs) for _ in range(depth)])
        self.remat = remat

    def __call__(self, carry: Carry, *shared: Any) -> Carry:
        for block in self:
            carry = remat(block, *carry, *shared) if self.remat else block(*carry, *shared)
        return carry


def depth(name: str, shape: tuple[int, ...]) -> int:
    """How many layers a weight of this name and shape belongs to."""
    return shape[0] if EACH in name.split(".") else 1


def unstacked(model: nnx.Module) -> nnx.Module:
    """`model`, changed in place to have a `Sequence` where it had a `Stack`."""
    for name, part in list(vars(model).items()):
        if isinstance(part, Stack):
            setattr(model, name, _apart(part))
    return model


def _apart(stack: Stack) -> Sequence:
    graph, state = nnx.split(stack.each)
    count = jax.tree.leaves(state)[0].shape[0]
    blocks = [
        nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(count)
    ]
    return Sequence(lambda rngs: blocks.pop(0), count, remat=stack.remat, rngs=None)
