"""From conditions to codes, for every system: compiled programs, windows, channels."""
