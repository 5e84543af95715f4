"""What a run is worth, to be looked at: plots and reports."""
