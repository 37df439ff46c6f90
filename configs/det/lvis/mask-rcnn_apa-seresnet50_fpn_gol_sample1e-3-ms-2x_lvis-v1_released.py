# The R50 recipe as the authors released it, to repeat their run. Each setting
# below is one difference from the corrected parent. Keys that were dead in
# the release (fp16, evaluation, perclass_nms, loop settings inside the
# model's train_cfg) are left out: they had no effect, but for the last, which
# left mmdet's default of validating after every epoch.
_base_ = './mask-rcnn_apa-seresnet50_fpn_gol_sample1e-3-ms-2x_lvis-v1.py'
model = dict(
    # The stem's AGLU stays trainable though its stage is frozen.
    backbone=dict(freeze_stem_act=False),
    # Only fc_cls is initialised; shared_fcs and fc_reg keep torch's default.
    roi_head=dict(
        bbox_head=dict(
            init_cfg=[
                dict(
                    type='Constant',
                    val=0.001,
                    bias=-2.,
                    override=dict(name='fc_cls'))
            ])))
# kappa and lambda decay like every other parameter.
optim_wrapper = dict(paramwise_cfg=None)
train_cfg = dict(val_interval=1)
