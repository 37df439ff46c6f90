"""What computes the functions: formulas, compiled forms and their choice.

``activation`` chooses how a tensor is computed, ``native`` calls the C++ of
``csrc`` (which ``build`` compiles), ``apa_triton`` holds the GPU kernels,
``formulas`` the plain torch form.
"""
