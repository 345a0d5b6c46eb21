"""Evaluation and the paper's study: scores, tables, figures, speed."""
