# Swin-T (Table 10): MMPretrain's recipe for 100 epochs.
_base_ = [
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    '../runtime/safe_hooks.py'
]
# Before weights are read: torch refuses mmengine's checkpoints otherwise.
custom_imports = dict(imports=['apa_mm'], allow_failed_imports=False)
default_hooks = _base_.safe_hooks
train_cfg = dict(max_epochs=100)
# kappa and lambda carry no weight decay.
optim_wrapper = dict(constructor='apa_mm.APAOptimWrapperConstructor')
# MMPretrain's browse_dataset.py cannot take an inherited one.
visualizer = dict(
    _delete_=True,
    type='UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')])
