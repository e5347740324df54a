"""What plugins registered, as cards."""
