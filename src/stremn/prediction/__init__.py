"""Section 4.2: video prediction with the same memory."""
