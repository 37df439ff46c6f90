# mmdet's Seesaw loss on a cosine classifier, for a box head; its user adds
# num_classes to the loss.
cosine_classifier = dict(type='apa_mm.CosineLinear', temperature=20.)
seesaw = dict(_delete_=True, type='SeesawLoss', p=0.8, q=2.)
