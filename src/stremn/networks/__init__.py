"""Backbones, encoders, decoders, and the models built from them."""
