"""One file a picture format: its header and its structure, checked from the bytes alone."""
