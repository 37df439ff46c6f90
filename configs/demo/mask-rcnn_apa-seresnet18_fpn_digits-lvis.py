# APA* gates and AGLU units with a softmax classifier.
_base_ = '../_base_/recipes/digits-lvis.py'
