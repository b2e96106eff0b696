"""The errors tinyseg raises: each says what was seen, the rule, and the remedy, in one line."""


class TinysegError(Exception):
    """Base of all errors that a user can fix; the command line prints it as one line, exit 2."""


class ConfigError(TinysegError):
    """A setting has a value that cannot be used."""


class DataError(TinysegError):
    """An image, a mask or a dataset folder cannot be used."""


def missing_package(what: str, package: str, extra: str) -> DataError:
    """Return the error for an input that only an extra of tinyseg can read."""
    return DataError(
        f'{what} is read by {package}, which is not installed: pip install "tinyseg[{extra}]"'
    )


class BackendError(TinysegError):
    """No device or compiler can run the network."""


class StepError(TinysegError):
    """A training or prediction step was called with something it must not accept."""


class NonFiniteError(TinysegError):
    """Training met a NaN or an infinity and stopped."""


class RunError(TinysegError):
    """A run folder or a checkpoint is missing, damaged or does not fit."""


class WeightsError(TinysegError):
    """A file of weights cannot be read, or does not fit the network."""
