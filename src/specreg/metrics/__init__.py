"""What is measured of samples, and how far it is from real data."""
