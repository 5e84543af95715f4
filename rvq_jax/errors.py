"""Errors meant for people: one line, what was wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in what the user gave (a file, a field, a folder), said in one line.

    The command line prints it without a traceback and exits with code 2.
    """
