"""Audio ↔ latents: encoders, decoders, and their three ways to run."""
