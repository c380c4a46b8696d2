"""The whole chain at one of three scales, with its report."""
