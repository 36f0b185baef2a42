"""Suspiciousness formulas: from the four counts of a line to a score, the higher the more suspicious.

Legend: ef, ep: failing and passing tests that ran the line; nf, np: those that did not; F = ef + nf; P = ep + np.

Every formula takes counts of NumPy or of JAX arrays, of any batch shape, and gives a number for every line: a ratio
without denominator has the limit its docstring names. Where an order can be had from whole numbers the ratio is formed
once, so that equal evidence gives equal floats.
"""

import functools
from collections.abc import Callable
from typing import Any

from faultloc.spectrum import Counts

Formula = Callable[[Counts], Any]


def _namespace(counts: Counts) -> Any:
    return counts.ef.__array_namespace__()


def ratio(numerator: Any, denominator: Any, at_zero: float = 0.0) -> Any:
    """The quotient, `at_zero` where there is nothing to divide by; differentiable and silent."""
    xp = numerator.__array_namespace__()
    empty = denominator == 0
    return xp.where(empty, at_zero, numerator / xp.where(empty, 1, denominator))


def totals(counts: Counts) -> tuple[Any, Any]:
    """F and P, `[..., 1]`, to stand beside the lines."""
    xp = _namespace(counts)
    return xp.asarray(counts.failing)[..., None], xp.asarray(counts.passing)[..., None]


def _of_floats(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The formula on whole numbers as well, whose products 32 bits may not hold."""

    @functools.wraps(formula)
    def cast(counts: Counts, *arguments: Any, **options: Any) -> Any:
        xp = _namespace(counts)
        arrays = [xp.asarray(count) for count in counts]
        floats = [x if xp.issubdtype(x.dtype, xp.floating) else xp.asarray(x, dtype=float) for x in arrays]
        return formula(Counts(*floats), *arguments, **options)

    return cast


def _aligned(counts: Counts) -> Counts:
    return Counts(counts.ef, counts.ep, *totals(counts))


@_of_floats
def tarantula(counts: Counts) -> Any:
    """(ef/F) / (ef/F + ep/P); 0 if ef = 0, 1 if P = 0 and ef > 0. Source: Jones, Harrold 2005."""
    xp, (failing, passing) = _namespace(counts), totals(counts)
    # Cleared of fractions; a missing kind of test counts as one that ran nothing.
    left = counts.ef * xp.maximum(passing, 1)
    return ratio(left, left + counts.ep * xp.maximum(failing, 1))


@_of_floats
def sbi(counts: Counts) -> Any:
    """`ef / (ef + ep)`; 0 if no test ran the line. Source: Liblit et al. 2005, as used by Yu et al. 2008."""
    return ratio(counts.ef, counts.ef + counts.ep)


@_of_floats
def ochiai(counts: Counts) -> Any:
    """`ef / sqrt(F (ef + ep))`; 0 if ef = 0. Source: Abreu et al. 2007."""
    xp, (failing, _) = _namespace(counts), totals(counts)
    return ratio(counts.ef, xp.sqrt(failing * (counts.ef + counts.ep)))


@_of_floats
def dstar(counts: Counts, exponent: float = 2) -> Any:
    """ef^exponent / (ep + nf); infinite if the denominator is 0 and ef > 0, else 0. Source: Wong et al. 2014."""
    xp, counts = _namespace(counts), _aligned(counts)
    perfect = xp.where(counts.ef > 0, float("inf"), 0.0)
    denominator = counts.ep + counts.nf
    return xp.where(denominator == 0, perfect, ratio(counts.ef**exponent, denominator))


@_of_floats
def op1(counts: Counts) -> Any:
    """-1 if some failing test did not run the line, else np. Source: Naish et al. 2011 (O)."""
    counts = _aligned(counts)
    return _namespace(counts).where(counts.nf > 0, -1.0, counts.np)


@_of_floats
def op2(counts: Counts) -> Any:
    """`ef - ep / (P + 1)`. Source: Naish et al. 2011 (O^p)."""
    return counts.ef - counts.ep / (totals(counts)[1] + 1)


@_of_floats
def barinel(counts: Counts) -> Any:
    """1 - ep / (ep + ef); 0 if no test ran the line. Source: Abreu et al. 2009, one fault."""
    return 1 - ratio(counts.ep, counts.ep + counts.ef, at_zero=1.0)


@_of_floats
def jaccard(counts: Counts) -> Any:
    """`ef / (F + ep)`; 0 if ef = 0. Source: Chen et al. 2002."""
    return ratio(counts.ef, totals(counts)[0] + counts.ep)


@_of_floats
def kulczynski2(counts: Counts) -> Any:
    """(ef/F + ef/(ef + ep)) / 2; 0 if ef = 0. Source: Naish et al. 2011, after Kulczynski 1927."""
    return (ratio(counts.ef, counts.ef * 0 + totals(counts)[0]) + sbi(counts)) / 2


@_of_floats
def ample(counts: Counts) -> Any:
    """|ef/F - ep/P|, a fraction of no test being 0. Source: Dallmeier et al. 2005, as in Abreu et al. 2007."""
    failing, passing = totals(counts)
    return abs(ratio(counts.ef, counts.ef * 0 + failing) - ratio(counts.ep, counts.ep * 0 + passing))


@_of_floats
def wong1(counts: Counts) -> Any:
    """The count ef itself. Source: Wong et al. 2007."""
    return counts.ef


@_of_floats
def wong2(counts: Counts) -> Any:
    """`ef - ep`. Source: Wong et al. 2007."""
    return counts.ef - counts.ep


@_of_floats
def wong3(counts: Counts) -> Any:
    """`ef - h`, h = ep up to 2, then 2 + .1 (ep - 2) up to 10, then 2.8 + .001 (ep - 10). Source: Wong et al. 2007."""
    xp, ep = _namespace(counts), counts.ep
    return counts.ef - xp.where(ep <= 2, ep, xp.where(ep <= 10, 2 + 0.1 * (ep - 2), 2.8 + 0.001 * (ep - 10)))


@_of_floats
def gp13(counts: Counts) -> Any:
    """`ef (1 + 1 / (2 ep + ef))`; 0 if ef = 0. Source: Yoo 2012."""
    return counts.ef + ratio(counts.ef, 2 * counts.ep + counts.ef)


@_of_floats
def zoltar(counts: Counts) -> Any:
    """`ef / (F + ep + 10000 nf ep / ef)`; 0 if ef = 0. Source: Janssen et al. 2009."""
    aligned = _aligned(counts)
    penalty = ratio(10000 * aligned.nf * aligned.ep, aligned.ef)
    return ratio(aligned.ef, aligned.failing + aligned.ep + penalty)


@_of_floats
def crosstab(counts: Counts) -> Any:
    """Chi-square of coverage against outcome over the number of tests, with the sign of ef/F - ep/P.

    0 if one kind of test is missing or the line splits no test from another. Source: Wong et al. 2012.
    """
    xp, aligned = _namespace(counts), _aligned(counts)
    failing, passing = aligned.failing, aligned.passing
    covered, tests = aligned.ef + aligned.ep, failing + passing
    lean = aligned.ef * passing - aligned.ep * failing
    # The usual sum over four cells of (observed - expected)^2 / expected, brought onto one denominator.
    return ratio(xp.sign(lean) * lean**2, failing * passing * covered * (tests - covered))


FORMULAS: dict[str, Formula] = {
    function.__name__: function
    for function in (
        tarantula, sbi, ochiai, dstar, op1, op2, barinel, jaccard, kulczynski2, ample, wong1, wong2, wong3, gp13,
        zoltar, crosstab,
    )
}  # fmt: skip


def get(name: str) -> Formula:
    """The formula of that name; `dstar3` is D* with exponent 3.

    Raises:
        ValueError: there is none.
    """
    if name.startswith("dstar") and name[5:].isdigit():
        exponent = int(name[5:])
        return lambda counts: dstar(counts, exponent)
    if name not in FORMULAS:
        raise ValueError(f"no formula {name!r}; there are {', '.join(FORMULAS)} and dstarN with an exponent N")
    return FORMULAS[name]
