"""Transforms: quantile → training reward Φ(u), with its log-partition.

`transform` is the contract and what follows from it by quadrature; `members` are those of the
field; `custom` is for a function of your own. The optimal one is solved for, in
:mod:`infalign.quantile.optimal`.
"""

from infalign.quantile.transforms.custom import Custom
from infalign.quantile.transforms.members import Exponential, Identity, Log
from infalign.quantile.transforms.transform import Transform, refuse_beta

__all__ = ["Custom", "Exponential", "Identity", "Log", "Transform", "refuse_beta"]
