"""Train one run: its config, its random numbers, its folder."""
