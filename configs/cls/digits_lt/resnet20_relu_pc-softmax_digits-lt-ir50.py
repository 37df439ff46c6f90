# No attention, ReLU units; the prior is divided out at test time.
_base_ = './resnet20_relu_digits-lt-ir50.py'
model = dict(head=dict(logit_offset=dict(type='raw')))
custom_hooks = [dict(type='apa_mm.ClassFrequencyHook')]
