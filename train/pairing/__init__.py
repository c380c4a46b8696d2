"""Strict pairing: a hospital's raw list of images becomes same-eye, same-day triples."""
