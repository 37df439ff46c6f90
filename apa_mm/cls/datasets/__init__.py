"""Long-tailed data sets on MMPretrain's base classes."""
from .cifar_lt import CIFAR10LT, CIFAR100LT
from .digits_lt import DigitsLT
from .image_list import (ImageListDataset, ImageNetLT, INaturalist2018,
                         PlacesLT)

__all__ = ['CIFAR100LT', 'CIFAR10LT', 'DigitsLT', 'INaturalist2018',
           'ImageListDataset', 'ImageNetLT', 'PlacesLT']
