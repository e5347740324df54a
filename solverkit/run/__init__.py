"""`sk.sample`: the drivers, the draws, the grid of a run, constraints."""
