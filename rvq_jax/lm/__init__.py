"""Token language models: a transformer over interleaved codes, its conditioner, its decoding."""
