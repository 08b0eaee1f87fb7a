"""The trade-off suite: what a system's samples gain, and what they cost, as its sampler's settings change.

Around its own recipe each system is sampled with other numbers of chain steps, other step sizes and other temperatures. At every
setting stand the distance of the samples to the data, what the system's own score says of them, and seconds per image.
"""

from evaluators.tradeoff.suite import TradeoffResult, TradeoffSuite

__all__ = ["TradeoffResult", "TradeoffSuite"]
