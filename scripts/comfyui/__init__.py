"""A folder for ComfyUI's custom_nodes; omgsr-jax must be installed in ComfyUI's environment."""

from omgsr_jax.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
