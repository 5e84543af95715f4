"""Reading and writing other projects' files."""
