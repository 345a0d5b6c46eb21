"""Training clips, made from stills and videos."""
