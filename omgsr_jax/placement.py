"""How rules on weights' names divide weights over a mesh, in training and in inference."""

from jax.sharding import Mesh, PartitionSpec

# A regular expression on a weight's name, and the mesh axes of its last dimensions.
Rule = tuple[str, tuple[str | None, ...]]


def fitting(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The axes of the last dimensions; those that do not divide their dimension are left out."""
    axes = axes[max(0, len(axes) - len(shape)) :]
    aligned = (None,) * (len(shape) - len(axes)) + axes
    return PartitionSpec(
        *(
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(aligned, shape, strict=True)
        )
    )
