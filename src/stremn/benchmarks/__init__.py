"""Speed and memory of a model, measured."""
