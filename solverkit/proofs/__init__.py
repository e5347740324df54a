"""The proofs that every sampler carries; `solverkit.testing` runs them."""
