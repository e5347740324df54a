"""Plans fitted to a network and a budget: the references, the fit, and what comes of it."""
