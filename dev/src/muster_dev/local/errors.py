"""The base of the development bed's errors; the message is for users and is shown without a traceback."""


class LocalError(Exception):
    """A cluster cannot do what was asked; the message says what is wrong and what to do."""
