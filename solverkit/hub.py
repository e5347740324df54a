"""Loading and saving of networks: bundled ones, diffusers folders, hub ids."""

from .files.hub import load, save
from .files.token_folder import masked_lm

__all__ = ["load", "masked_lm", "save"]
