"""The one error of this package."""

__all__ = ['AnalysisError']


class AnalysisError(ValueError):
    """Input that cannot be analysed: what it was, what was expected, a cure.

    Example:
        >>> raise AnalysisError('no gates')
        Traceback (most recent call last):
        ...
        apa_mm.analysis.errors.AnalysisError: no gates
    """
