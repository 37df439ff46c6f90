# Units of the authors' classification code: kappa from (0.8, 1.2), and the
# gradient of lambda as Eq. 8 is printed.
released_unit = dict(
    type='apa_mm.AGLU', kappa_init=(0.8, 1.2), lambda_grad='paper')
