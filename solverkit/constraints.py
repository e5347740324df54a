"""Constraints on a run: what is known of x_0 replaces the state's own, at each level, before the network looks."""

from .run.constraints import Replacement, colorize, inpaint, observe, pipeline_callback, together

__all__ = ["Replacement", "colorize", "inpaint", "observe", "pipeline_callback", "together"]
