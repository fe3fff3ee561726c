"""Measurements that choices in the relay rest on. Each module is a program: `python -m benchmarks.NAME`."""
