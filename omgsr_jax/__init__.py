"""OMGSR in JAX: one-step real-world image super-resolution from a mid-timestep."""

__version__ = "0.1.0"
