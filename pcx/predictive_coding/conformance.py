"""Whether what an energy function declares of itself is true, for energy functions of one's own.

from pcx.predictive_coding import conformance

def test_my_energy():
    conformance.check_traits(lambda: pxc.Vode((4,), my_energy), h, u)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Mask, named_params
from ..functional import value_and_grad
from ..nn import LayerParam
from ._traits import name_of, traits
from ._vode import Vode


def check_traits(make: Callable[[], Vode], h: Any, u: Any, *, atol: float = 1e-4) -> None:
    """Check the traits of a vode's energy function, see `pxc.Traits`, by automatic differentiation.

    * `stationary`: where h = u the gradients in h, in u and in the vode's own params are zero.
    * `precision` p: the second derivatives in h are p on the diagonal, and zero off it.
    * `mean` m: where h = m(u) the gradient in u is zero, as it is for distributions of the
      exponential family: of all predictions u explains its own mean best.

    Nothing is checked of what is not declared.

    Args:
        make: makes the vode, a fresh one for each check.
        h, u: a state and a prediction, of the event shape.
        atol: tolerance.

    Raises:
        AssertionError: a declared trait is false; it says which, and what was found.

    Example:
        >>> import jax.numpy as jnp, pcx.predictive_coding as pxc
        >>> from pcx.predictive_coding import conformance
        >>> h, u = jnp.array([0.2, 0.8]), jnp.array([-1.0, 2.0])
        >>> conformance.check_traits(lambda: pxc.Vode((2,), pxc.bernoulli_energy), h, u)
    """
    h, u = jnp.asarray(h, float), jnp.asarray(u, float)
    energy_fn = make().energy_fn
    declared, name = traits(energy_fn), name_of(energy_fn)

    def energy(h: Any, u: Any) -> Any:
        return make().set("h", h).set("u", u).energy()

    def expect(got: Any, want: Any, what: str) -> None:
        np.testing.assert_allclose(got, want, atol=atol, rtol=1e-3, err_msg=f"`{name}` {what}")

    if declared.stationary:
        what = "declares stationary=True, but its gradient in {} is not zero where h = u"
        # a node without dependence on u has the gradient zero in it
        for argument, key in enumerate(("h", "u")):
            expect(jax.grad(energy, argument)(u, u), jnp.zeros_like(u), what.format(key))
        vode = make().set("h", u).set("u", u)
        if any(Mask(LayerParam).select(p) for _, p in named_params(vode)):
            own = value_and_grad(LayerParam)(lambda *, vode: vode.energy())(vode=vode)[1]["vode"]
            for path, grad in named_params(own):
                expect(grad.get(), jnp.zeros(grad.shape), what.format(f"`{path}`"))
    if declared.precision is not None:
        p = declared.precision(make()) if callable(declared.precision) else declared.precision
        want = jnp.diag(jnp.broadcast_to(p, u.shape).ravel())
        got = jax.hessian(energy)(h, u).reshape(want.shape)
        expect(got, want, "declares a precision that is not its second derivative in h")
    if declared.mean is not None:
        what = (
            "declares a mean, but u does not explain it best: its gradient in u is not zero there"
        )
        expect(jax.grad(energy, 1)(declared.mean(u), u), jnp.zeros_like(u), what)
