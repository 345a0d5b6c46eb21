"""Files in and out: videos, label maps, prompts, results."""
