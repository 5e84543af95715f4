"""What a run is worth: metrics, information between levels, plots, reports."""
