"""The evaluation card: models side by side over several data sets, computed from tables only."""
