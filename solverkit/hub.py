"""Loading and saving of networks: bundled ones, diffusers folders, hub ids."""

from .files.hub import load, save

__all__ = ["load", "save"]
