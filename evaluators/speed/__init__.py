"""The speed suite: what an image costs in seconds, network evaluations and memory."""

from evaluators.speed.suite import SpeedSuite

__all__ = ["SpeedSuite"]
