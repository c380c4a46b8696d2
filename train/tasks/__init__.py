"""Sixteen downstream tasks that say what an encoder is good for, measured one way for every arm."""
