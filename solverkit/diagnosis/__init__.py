"""What a network is like before a sampler is chosen: figures a noise level, faults by name, and a recommendation."""
