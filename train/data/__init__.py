"""The on-disk data set: index, checks and the loader."""
