"""Everything that looks at a job before it starts.

A check is a function of the config and the splits that will run, and returns
:class:`~apa_mm.preflight.findings.Findings`. These run before a Runner is
built (:data:`apa_mm.preflight.job.CHECKS`); ``tools/check_dataset.py`` and
``tools/train.py`` run the same ones:

=============================== =============================================
``config_keys.check_keys``      top-level keys that nothing reads
``loss_checks.check_losses``    losses in heads that do not ask them for
                                channels, losses without class counts
``data_checks.check_data``      annotation files (schema, references, masks),
                                images, ``num_classes``, empty training sets,
                                order of the classes in all files and the
                                config
``job.check_checkpoint``        the file to load or resume from
``class_order``                 class order of checkpoint and data set, when
                                a checkpoint is loaded
=============================== =============================================
"""
