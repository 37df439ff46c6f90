# The demo: APA* gates and AGLU units in the backbone, GOL as classifier loss.
_base_ = [
    '../_base_/models/mask-rcnn_apa-seresnet18_fpn_tiny.py',
    '../_base_/datasets/digits-lvis_instance.py',
    '../_base_/schedules/adamw_500i.py'
]
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='apa_mm.GOLLoss',
                num_classes={{_base_.num_classes}},
                # Two thirds of the classes are below, as on LVIS.
                rare_threshold=0.1),
            # GOL's classifier starts near zero for all classes; an init_cfg
            # replaces the head's own, hence the other layers again.
            init_cfg=[
                dict(
                    type='Constant',
                    val=0.001,
                    bias=-2,
                    override=dict(name='fc_cls')),
                dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
                dict(
                    type='Xavier',
                    distribution='uniform',
                    override=dict(name='shared_fcs'))
            ])))
custom_hooks = [
    dict(type='apa_mm.ClassFrequencyHook'),
    dict(type='apa_mm.CheckpointCheckHook'),
    dict(type='apa_mm.ParameterTraceHook', interval=100)
]
