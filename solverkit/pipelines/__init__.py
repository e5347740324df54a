"""The scheduler of diffusers pipelines; all that knows their conventions."""
