"""The errors of `ml`, which imports no other room and so has a base of its own. Messages are sentences for a person."""


class ModelError(Exception):
    """Something is wrong with a model."""


class ModelUnknown(ModelError):
    """No installed package provides the algorithm that was asked for."""


class ModelPayloadInvalid(ModelError):
    """Bytes that were said to be a model are not one, or hold what may not be loaded."""


class ModelInputInvalid(ModelError):
    """A matrix, labels or weights do not fit the model."""


class ModelParametersInvalid(ModelError):
    """Hyper-parameters that an algorithm does not know, or whose values it cannot use."""


class BaselineInvalid(ModelError):
    """Reference data that no baseline can be made of, bytes that are not a baseline, or one of other features."""


class CountsInvalid(ModelError):
    """Rows or counts that do not fit the baseline they are counted in."""


class SharesInvalid(ModelError):
    """Shares of an experiment's variants that are none, or a table that does not give every bucket to one of them."""
