"""Systems at work on files and folders: encode, decode, generate, describe, export."""
