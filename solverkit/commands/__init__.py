"""The commands of the `solverkit` script, one module a noun."""
