"""Machinery of the benchmarks: peers and their processes, the machine and its floor, material to read, tables."""
