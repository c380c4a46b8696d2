"""INT8 calibration, probability calibration, operating points and the gate (no torch)."""
