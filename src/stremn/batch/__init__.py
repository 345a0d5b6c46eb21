"""Many videos: jobs from a table or a folder, spread over processes or a cluster."""
