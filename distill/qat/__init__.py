"""Quantisation-aware training: the third stage, for a student that the INT8 gate refused.

The student runs with the rounding of its INT8 file in between (same places, same symmetric
scheme), so that its weights can move to where rounding hurts least. What comes out is an
ordinary student checkpoint; export and INT8 calibration are as ever.
"""
