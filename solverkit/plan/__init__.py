"""Samplers as data: symbols, the tape that records them, plans, and the pure functions that drive a plan."""
