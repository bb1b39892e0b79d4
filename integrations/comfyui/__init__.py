"""BAGEL in ComfyUI. This folder, or a link to it, belongs into ComfyUI's `custom_nodes`; see README.md."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
