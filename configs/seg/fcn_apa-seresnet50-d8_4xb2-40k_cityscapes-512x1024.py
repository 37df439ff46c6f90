# MMSegmentation's FCN with APA* gates and AGLU units. APAResNetD without
# avg_down is its ResNetV1c, with the names that converted weights have.
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
custom_imports = dict(imports=['apa_mm.registry'])
model = dict(
    pretrained=None, backbone=dict(type='apa_mm.APAResNetD', avg_down=False))
optim_wrapper = dict(constructor='apa_mm.APAOptimWrapperConstructor')
