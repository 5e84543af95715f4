"""What every kind of model can be asked of how it samples, by the names of its arguments."""

SAMPLING = ("guidance_scale", "temperature", "top_k", "top_p")
