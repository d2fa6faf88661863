"""Breaking things on purpose: `python -m benchmarks.reliability.fuzz`."""
