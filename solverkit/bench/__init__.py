"""Measuring samplers: suites, metrics and their reference statistics."""
