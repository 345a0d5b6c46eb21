"""The web page: upload a video, mark objects, segment, correct, download."""
