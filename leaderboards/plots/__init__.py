"""Plots in one style, a file per suite: what a suite returned, its rows and arrays, as PNG (and PDF) files.

matplotlib is imported when a plot is made, without its global state (``pyplot``), so that plots can be made anywhere.
"""
