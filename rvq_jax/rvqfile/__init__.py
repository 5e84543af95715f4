"""The .rvq file: codes on disk, each level apart, entropy coded with integers only."""
