"""What can go wrong with a device, each told in one line that ends in the remedy."""


class JetsonError(Exception):
    """A problem that the user can put right; programs print its one line and exit with 1."""


class HostKeyError(JetsonError):
    """The device's host key is unknown, changed or revoked; nothing was sent to it."""


class AuthenticationError(JetsonError):
    """The device is there but lets this user not in."""


class ConnectionLost(JetsonError):
    """The device did not answer or the connection broke; trying again can help."""


class RemoteScriptError(JetsonError):
    """A script on the device ended with an error of its own."""
