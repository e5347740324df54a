"""Loading and saving: bundled networks, diffusers folders, hub ids."""
