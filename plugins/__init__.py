"""The samplers that ship with solverkit, found through the same entry-point group as a stranger's."""
