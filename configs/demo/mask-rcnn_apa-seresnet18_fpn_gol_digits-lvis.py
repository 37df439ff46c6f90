# The demo: APA* gates and AGLU units in the backbone, GOL as classifier loss.
_base_ = ['../_base_/recipes/digits-lvis.py', '../_base_/models/gol.py']
# Two thirds of the classes are labelled on fewer images, as on LVIS.
loss_cls = dict(
    _delete_=True, type='apa_mm.GOLLoss', num_classes=30, rare_threshold=0.05)
model = dict(
    roi_head=dict(
        bbox_head=dict(loss_cls=loss_cls, init_cfg=_base_.gol_init)))
trace = dict(type='apa_mm.ParameterTraceHook', interval=100)
custom_hooks = [*_base_.gol_hooks, trace]
