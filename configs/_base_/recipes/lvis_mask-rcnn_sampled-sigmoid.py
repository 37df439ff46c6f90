# LVIS v1 with sigmoids of the classes, trained on 50 of them at a time.
_base_ = ['./lvis_mask-rcnn.py', '../models/sampled-sigmoid.py']
model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _base_.sampled_sigmoid, num_classes=_base_.num_classes),
            init_cfg=_base_.sampled_sigmoid_init)))
custom_hooks = _base_.gol_hooks
