"""Comparisons with peers, limits of the machine, experiments on quality."""
