"""`python -m benchmarks`: see `benchmarks.losses`."""

from benchmarks.losses import main

main()
