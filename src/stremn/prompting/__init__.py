"""Turn a box, clicks or a rough mask into the mask of an object."""
