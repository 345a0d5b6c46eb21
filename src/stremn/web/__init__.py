"""A web page that follows objects through a video: upload, point, run, watch, download."""
