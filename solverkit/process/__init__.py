"""Noise levels and the schedules that networks were trained on."""
