# MMPretrain's settings with the hooks of every recipe.
_base_ = ['mmpretrain::_base_/default_runtime.py', './safe_hooks.py']
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
# MMPretrain's browse_dataset.py cannot take an inherited one.
visualizer = dict(
    _delete_=True,
    type='UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')])
