"""Linear measurements y = A x_0 + noise: operators with their adjoints, and what was measured."""
