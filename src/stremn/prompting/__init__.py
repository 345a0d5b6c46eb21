"""A box, clicks or a rough mask becomes the mask of an object: the memory's third task."""
