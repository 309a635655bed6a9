"""The one error of providers."""


class Unusable(Exception):
    """This provider cannot compute this model here, for the reason that the text says; the cpu can."""
