"""Samplers of other libraries as samplers of ours, and ours in the form of theirs; proofs of released code."""
