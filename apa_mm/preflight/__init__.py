"""Everything that looks at a job before it starts.

A check is a function of a config and of the splits that will run; it returns
:class:`~apa_mm.preflight.findings.Findings`. Those of
:data:`apa_mm.preflight.job.CHECKS` run before a Runner is built, and the same
ones in ``tools/check_dataset.py``.
"""
