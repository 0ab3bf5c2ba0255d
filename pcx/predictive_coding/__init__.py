"""Vodes, energies, rules and energy modules (`pxc`)."""

from ..nn import LayerParam as LayerParam  # the paper's listing writes `pxc.LayerParam`
from ._arguments import VodeParam as VodeParam
from ._clamp import Clamp as Clamp
from ._energy import Weighted as Weighted
from ._energy import ce_energy as ce_energy
from ._energy import se_energy as se_energy
from ._energy import state_and_prediction as state_and_prediction
from ._energy import zero_energy as zero_energy
from ._energy_module import EnergyModule as EnergyModule
from ._energy_module import energy_modules as energy_modules
from ._gaussian import GaussianVode as GaussianVode
from ._gaussian import gaussian_energy as gaussian_energy
from ._likelihoods import bernoulli_energy as bernoulli_energy
from ._likelihoods import poisson_energy as poisson_energy
from ._penalty import ActivityDecay as ActivityDecay
from ._penalty import Penalty as Penalty
from ._penalty import SpectralPenalty as SpectralPenalty
from ._penalty import WeightDecay as WeightDecay
from ._rules import STATUS as STATUS
from ._rules import Rule as Rule
from ._rules import Ruleset as Ruleset
from ._stack import Stack as Stack
from ._states import free_states as free_states
from ._states import reclamp as reclamp
from ._states import vodes as vodes
from ._traits import Traits as Traits
from ._traits import energy_function as energy_function
from ._traits import mean as mean
from ._traits import traits as traits
from ._vode import Vode as Vode
