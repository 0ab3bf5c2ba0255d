"""A short random search for a combination in which lazy inference changes a number."""

import pytest

from tests.algorithms import search_lazy
from tests.algorithms.problems import float64

pytestmark = pytest.mark.optimised


@pytest.mark.filterwarnings("ignore")
def test_no_random_combination_differs():
    with float64():
        differing, *_ = search_lazy.search(3, seed=4)
    assert not differing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_random_combination_differs_in_a_longer_search():
    with float64():
        differing, _, skipped = search_lazy.search(15, seed=2)
    assert not differing
    assert skipped > 0
