# APA* gates and AGLU units with Seesaw loss and a cosine classifier.
_base_ = ['../_base_/recipes/digits-lvis.py', '../_base_/models/seesaw.py']
loss_cls = dict(_base_.seesaw, num_classes=_base_.num_classes)
model = dict(
    roi_head=dict(
        bbox_head=dict(
            cls_predictor_cfg=_base_.cosine_classifier, loss_cls=loss_cls)))
