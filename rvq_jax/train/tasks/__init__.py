"""What training means for each kind of model: its loss, and what changes beside the gradient."""
