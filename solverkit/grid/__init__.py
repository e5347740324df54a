"""The falling levels of a run, and the named ways to lay them out."""
