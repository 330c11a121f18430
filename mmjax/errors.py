"""The one exception the command line prints as a message instead of a traceback."""


class UserError(Exception):
    """Bad input: a name, value or file that the caller can put right.

    Raise it, or a subclass, with one sentence that gives the offending value, what was
    expected in its place and the fix. The command line prints the message alone and
    exits with status 2.
    """


LEFT_OUT = 3  # exit status of a command that is done, but for what it named on stderr
