"""Empirical model statistics l, s and b of DPM-Solver-v3: measured from a network, kept in a file, and in closed form."""
