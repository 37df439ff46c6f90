# APA* gates, ReLU units; imbalance 10 (19,573 images).
_base_ = './apa-seresnet32_relu_1xb512-mixup-500e_cifar100-lt-ir100.py'
imbalance_factor = 10
train_dataloader = dict(dataset=dict(imbalance_factor=imbalance_factor))
val_dataloader = dict(dataset=dict(imbalance_factor=imbalance_factor))
test_dataloader = val_dataloader
