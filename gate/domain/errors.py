"""The one error tree. Exit codes and HTTP statuses are given to these only at the rim."""


class GateError(Exception):
    """Anything Basin Gate refuses or cannot do. The message says: expected, found, what to do."""


class InvalidInput(GateError):
    """What came from outside does not have the required shape."""


class Unverified(GateError):
    """A signature is missing, wrong, or outside its validity."""


class Unauthenticated(GateError):
    """Who asks is not known."""


class Forbidden(GateError):
    """Who asks is known, and may not do this."""


class NotFound(GateError):
    """What was asked for is not there (any more)."""


class Unavailable(GateError):
    """An outside thing did not answer; trying again later can help."""


class LostLease(GateError):
    """The row was claimed by somebody else since: this worker's result must not be written."""


class NotMeasurable(GateError):
    """The checkpoint cannot be measured; the message is the reason shown to its owner."""
