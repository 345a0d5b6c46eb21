"""Output formats that other programs read."""
