"""Audio ↔ latents: encoders, decoders, their three ways to run, and the file of codes."""
