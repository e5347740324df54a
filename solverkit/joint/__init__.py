"""Systems: several components, each with its own schedule and shape, that one network denoises jointly (GDSS)."""

from .spaces import Space, centred, free, nodes, symmetric_hollow

__all__ = ["Space", "centred", "free", "nodes", "symmetric_hollow"]
