"""Samplers of other libraries as samplers of ours, and ours in the form of theirs; proofs of released code."""

DIFFUSERS, K_DIFFUSION = "diffusers:", "k-diffusion:"  # what stands before the name of a released sampler


def is_foreign(name: str) -> bool:
    """Whether another library's sampler is named."""
    return name.startswith((DIFFUSERS, K_DIFFUSION))
