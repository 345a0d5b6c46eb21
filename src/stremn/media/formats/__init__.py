"""Formats that other programs read: what is in them, and when they are written."""
