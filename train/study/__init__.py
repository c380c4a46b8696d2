"""The study: every pretraining arm over seeds, measured on the same tasks, as one report."""
