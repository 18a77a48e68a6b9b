"""The one base of what can go wrong in `muster local`: its text is for the user, whole sentences, no traceback needed."""


class LocalError(Exception):
    """The local cluster cannot do what was asked; the message says what is wrong and what to do."""
