"""Networks behind the one interface, what they predict, how their evaluations are counted, and guidance."""
