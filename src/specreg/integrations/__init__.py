"""The term inside other people's trainers, one file for each. Each imports what it belongs to only when it is used."""
