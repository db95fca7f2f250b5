"""Benchmarks and the data they are run on."""
