"""Loading and saving of networks: bundled ones, diffusers folders, hub ids."""

from .files.hub import load, masked_lm, save

__all__ = ["load", "masked_lm", "save"]
