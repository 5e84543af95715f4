"""Audio on its own: files, resampling, spectra. Arrays are `[S, C]` float32 in [-1, 1]."""
