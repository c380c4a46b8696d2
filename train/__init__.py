"""Phantom, data sets, pretraining, fine-tuning and evaluation."""
