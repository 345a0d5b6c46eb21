"""The paper's study: tables, figures, logs of the memory."""
