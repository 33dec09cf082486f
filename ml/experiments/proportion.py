"""Whether a share is surely above a limit, at whatever moment one looks."""

import math
from typing import Final

import numpy as np
from scipy import special

_PRIOR: Final = 0.5  # both parameters of the Beta distribution (Jeffreys), which is cut off below the limit


def log_evidence(hits: int, n: int, limit: float) -> float:
    """Return ln M, how much likelier `hits` of n are if their share is above the limit than if it is the limit.

    M is the likelihood ratio with the share drawn from a Beta(½, ½) distribution cut off below the limit p,
    [B(½ + x, ½ + n - x) (1 - I_p(½ + x, ½ + n - x))] / [B(½, ½) (1 - I_p(½, ½))] / [p^x (1 - p)^(n - x)]: a mixture
    martingale (Robbins 1970, doi:10.1214/aoms/1177696786; Howard et al. 2021, doi:10.1214/20-AOS1991). While no event
    is a hit with more than the probability p, whatever came before it, M is ever 1/α or more with probability α at
    most (Ville), over all looks at once. For a limit of 0 it is infinite with the first hit, for a limit of 1 never
    more than 0. About 10 µs.
    """
    if limit <= 0:
        return math.inf if hits else 0.0
    if limit >= 1 or n == 0:
        return 0.0
    missed = n - hits
    likely = _log_mass(_PRIOR + hits, _PRIOR + missed, limit) - _log_mass(_PRIOR, _PRIOR, limit)
    return likely - hits * math.log(limit) - missed * math.log1p(-limit)


def _log_mass(a: float, b: float, limit: float) -> float:
    """Return ln ∫ q^(a-1) (1-q)^(b-1) dq from the limit to 1; -inf where that is too little to be told from 0."""
    with np.errstate(divide="ignore"):
        return float(special.betaln(a, b) + np.log(special.betaincc(a, b, limit)))
