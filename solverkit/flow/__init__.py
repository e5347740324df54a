"""The probability flow: encode and decode, likelihoods, and the integrators behind them."""
