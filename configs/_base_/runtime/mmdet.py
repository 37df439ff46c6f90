# MMDetection's settings with the hooks of every recipe.
_base_ = ['mmdet::_base_/default_runtime.py', './safe_hooks.py']
default_hooks = _base_.safe_hooks
