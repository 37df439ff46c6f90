# CBAM baseline: sigmoid gates, ReLU units. LayerNorm and dropout of its
# channel part belong to the authors' baseline too.
_base_ = './apa-cbam-resnet50_relu_4xb64-mixup-100e_in1k.py'
model = dict(
    backbone=dict(
        attention_cfg=dict(gate_cfg=dict(_delete_=True, type='Sigmoid'))))
