"""Train the prompt network: samples, loss, recipe."""
