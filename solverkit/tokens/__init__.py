"""Discrete diffusion: masked and uniform token models beside the continuous ones; nothing here is affine, all is pull."""
