"""Everything that looks at a job before it starts.

The checks of :data:`apa_mm.preflight.job.CHECKS` run before a Runner is built
and in ``tools/check_dataset.py``; they return
:class:`~apa_mm.preflight.findings.Findings`.
"""
