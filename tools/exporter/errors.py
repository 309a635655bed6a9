"""The one error of the exporter: a sentence that says what is wrong and what to do."""


class ExportError(Exception):
    """Refused; the message is shown to the person and the command exits with 1."""
