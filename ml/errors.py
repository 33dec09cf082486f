"""The errors of `ml`. It imports no other room, so it has its own small base; the message is one sentence for a person."""


class ModelError(Exception):
    """Something is wrong with a model."""


class ModelUnknown(ModelError):
    """No installed package provides the algorithm that was asked for."""


class ModelPayloadInvalid(ModelError):
    """Bytes that were said to be a model are not one, or hold what may not be loaded."""


class ModelInputInvalid(ModelError):
    """A matrix, labels or weights do not fit the model."""
