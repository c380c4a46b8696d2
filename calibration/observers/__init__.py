"""From a histogram of magnitudes to the largest one that INT8 will hold, by four methods.

The symmetric scale of TensorRT is `amax / 127`; what lies beyond `amax` saturates. A method
trades the error of saturating a few values against the error of coarser steps for all.
"""

from calibration.histogram import RangeHistogram
from calibration.observers.method import METHODS, RangeMethod, amax

__all__ = ["METHODS", "RangeHistogram", "RangeMethod", "amax"]
