"""The paper's tables from checkpoints and data that a user has."""
