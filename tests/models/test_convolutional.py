"""The convolutional models against bare JAX, published sizes and hand counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pcx as px
import pcx.functional as pxf
import pcx.models as pxm
import pcx.nn as pxnn
import pcx.predictive_coding as pxc
import pcx.utils as pxu
from pcx.models._resnet import Block

STATES = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache)


def abstract(make, **options):
    """Shapes of a model's vodes and its number of parameters, without a single array being made."""
    found = []

    def trace():
        model = make(rkg=px.RandomKeyGenerator(0), **options)
        leaves = jax.tree_util.tree_leaves(pxu.M(pxnn.LayerParam)(model))
        found.extend([[vode.shape for vode in model.vodes], sum(leaf.size for leaf in leaves)])

    jax.eval_shape(trace)
    return found


def conv_size(m, n, kernel=3):
    return m * n * kernel * kernel + n


@pxf.jit()
def forward(x, *, model):
    with pxu.step(model, pxc.STATUS.INIT, clear_params=STATES):
        return model(x)


def test_vgg5_has_the_sizes_of_table_5():
    shapes, count = abstract(pxm.VGG5)
    assert shapes == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1), (10,)]
    channels = [3, 128, 256, 512, 512]
    expected = sum(map(conv_size, channels[:-1], channels[1:])) + 512 * 10 + 10
    assert count == expected == 3_843_850


def test_vgg7_has_the_channels_and_paddings_of_table_5():
    shapes, count = abstract(pxm.VGG7)
    assert shapes == [
        (128, 32, 32),
        (128, 16, 16),
        (256, 16, 16),
        (256, 7, 7),
        (512, 7, 7),
        (512, 2, 2),
        (10,),
    ]
    channels = [3, 128, 128, 256, 256, 512, 512]
    assert count == sum(map(conv_size, channels[:-1], channels[1:])) + 2048 * 10 + 10


def test_vgg9_halves_the_image_four_times():
    shapes, _count = abstract(pxm.VGG9)
    assert [s[1:] for s in shapes[:-1]] == [(n, n) for n in (32, 16, 16, 8, 8, 4, 4, 2)]
    assert shapes[-1] == (10,)


def test_vgg5_takes_the_images_of_tiny_imagenet():
    shapes, _count = abstract(pxm.VGG5, in_shape=(3, 56, 56), classes=200)
    assert shapes == [(128, 28, 28), (256, 14, 14), (512, 7, 7), (512, 2, 2), (200,)]


def test_vgg5_equals_bare_equinox():
    px.RKG.seed(3)
    model = pxm.VGG5(width=1 / 64, act=jax.nn.leaky_relu)
    x = jax.random.normal(jax.random.PRNGKey(0), (3, 32, 32))
    pool = eqx.nn.MaxPool2d(2, 2)
    h = x
    for layer, padding in zip(model.layers[:4], (1, 1, 1, 0), strict=True):
        n, m = layer.nn.weight.shape[:2]
        bare = eqx.nn.Conv2d(m, n, 3, padding=padding, key=jax.random.key(0))
        bare = eqx.tree_at(
            lambda c: (c.weight, c.bias), bare, (layer.nn.weight.get(), layer.nn.bias.get())
        )
        h = pool(jax.nn.leaky_relu(bare(h)))
    linear = model.layers[4].nn
    expected = linear.weight.get() @ h.reshape(-1) + linear.bias.get()
    np.testing.assert_allclose(forward(x, model=model), expected, rtol=1e-5, atol=1e-6)


def test_alexnet_has_the_sizes_usual_for_cifar():
    shapes, count = abstract(pxm.AlexNet, hidden=(64, 32))
    assert shapes[:5] == [(64, 8, 8), (192, 4, 4), (384, 4, 4), (256, 4, 4), (256, 2, 2)]
    convolutions = sum(map(conv_size, [3, 64, 192, 384, 256], [64, 192, 384, 256, 256]))
    linears = 1024 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert count == convolutions + linears


def test_alexnets_hidden_linear_layers_are_activated_and_the_last_is_not():
    model = pxm.AlexNet(width=1 / 64, hidden=(5,), act=jax.nn.relu)
    with pxu.step(model, pxc.STATUS.INIT):
        model(jax.random.normal(jax.random.PRNGKey(0), (3, 32, 32)))
    flat, hidden, out = (np.asarray(vode.h.get()).reshape(-1) for vode in model.vodes[-3:])
    first, last = model.layers[-2].nn, model.layers[-1].nn
    expected = np.maximum(first.weight.get() @ flat + first.bias.get(), 0)
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(out, last.weight.get() @ hidden + last.bias.get(), rtol=1e-5)


def test_resnet18_has_the_published_size():
    # torchvision's ResNet-18 with the CIFAR stem and ten classes has 11 173 962 parameters, 9 600
    # of them scales and shifts of its normalisations
    shapes, count = abstract(pxm.ResNet18)
    assert count == 11_173_962
    assert shapes == [
        (64, 32, 32),
        (64, 32, 32),
        (64, 32, 32),
        (128, 16, 16),
        (128, 16, 16),
        (256, 8, 8),
        (256, 8, 8),
        (512, 4, 4),
        (512, 4, 4),
        (10,),
    ]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_residual_block_equals_bare_jax(stride):
    block = Block(4, 4, stride, jax.nn.relu, None, px.RandomKeyGenerator(0))
    h = jax.random.normal(jax.random.PRNGKey(2), (4, 8, 8))

    def conv(layer, h, stride, padding):
        out = jax.lax.conv_general_dilated(
            h[None], layer.nn.weight.get(), (stride, stride), [(padding, padding)] * 2
        )
        return out[0] + layer.nn.bias.get()

    @jax.jit
    def bare(h):
        u = conv(block.convs[1], jax.nn.relu(conv(block.convs[0], h, stride, 1)), 1, 1)
        return jax.nn.relu(u + (h if stride == 1 else conv(block.shortcut, h, 2, 0)))

    mine = pxf.jit()(lambda h, *, block: block(h))(h, block=block)
    np.testing.assert_allclose(mine, bare(h), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "independent"), [("group", True), ("batch", False)])
def test_only_batch_normalisation_lets_one_sample_change_another(norm, independent):
    block = Block(4, 4, 1, jax.nn.relu, norm, px.RandomKeyGenerator(0))
    x = jax.random.normal(jax.random.PRNGKey(0), (3, 4, 8, 8))

    @pxf.jit()
    @pxf.vmap({}, in_axes=(0,), axis_name="batch")
    def run(x, *, block):
        return block(x)

    before, after = run(x, block=block), run(x.at[2].set(-5.0), block=block)
    assert np.allclose(before[:2], after[:2], atol=1e-6) is independent


def test_a_decoder_starts_from_zeros_or_from_a_given_code():
    px.RKG.seed(0)
    model = pxm.LinearDecoder([2, 5, 4], act=jnp.tanh)
    (w1, b1), (w2, b2) = ((m.nn.weight.get(), m.nn.bias.get()) for m in model.layers[1:])
    for code in (None, jnp.array([0.3, -2.0])):
        z = np.zeros(2) if code is None else np.asarray(code)
        expected = w2 @ np.tanh(w1 @ z + b1) + b2
        np.testing.assert_allclose(forward(code, model=model), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("prior", "expected"), [(True, 0.5 * (1.5**2 + 2**2)), (False, 0.0)])
def test_the_prior_is_a_standard_normal_on_the_bottleneck(prior, expected):
    model = pxm.LinearDecoder([2, 5, 4], prior=prior)
    with pxu.step(model, pxc.STATUS.INIT):
        model()
    model.vodes[0].set("h", jnp.array([1.5, -2.0]))
    assert float(model.vodes[0].energy()) == pytest.approx(expected)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7])
@pytest.mark.parametrize("side", [28, 32])
def test_every_kernel_of_the_papers_search_gives_the_images_size(kernel, side):
    def image(code):
        model = pxm.ConvDecoder(
            (1, side, side), (8, 3, 2), kernel=kernel, rkg=px.RandomKeyGenerator(0)
        )
        assert model.vodes[0].shape == (8, 4, 4)
        with pxu.step(model, pxc.STATUS.INIT):
            return model(code)

    assert jax.eval_shape(image, jnp.ones((8, 4, 4))).shape == (1, side, side)


def test_an_output_activation_bounds_the_image():
    model = pxm.ConvDecoder((1, 8, 8), (2,), out_act=jax.nn.sigmoid)
    image = forward(100 * jnp.ones((2, 4, 4)), model=model)
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1


def test_an_image_too_small_is_refused_with_the_layer_that_fails():
    with pytest.raises(
        ValueError, match=r"VGG5: an image of 16x16 is too small\. After convolution 4"
    ):
        pxm.VGG5(in_shape=(3, 16, 16), width=1 / 64)


def test_lists_of_other_lengths_than_channels_are_refused():
    with pytest.raises(ValueError, match="`pools` has 1 entries for 2 convolutions"):
        pxm.VGG([2, 2], [True])


@pytest.mark.wrong_types
def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match='"group", "batch" or None; got \'layer\''):
        pxm.ResNet18(norm="layer")


@pytest.mark.parametrize("arguments", [{"channels": ()}, {"kernel": 1}])
def test_a_decoder_without_layers_or_with_gaps_is_refused(arguments):
    with pytest.raises(
        ValueError, match="at least one number of channels, and a kernel that covers"
    ):
        pxm.ConvDecoder(**arguments)


def test_a_linear_decoder_needs_two_sizes():
    with pytest.raises(ValueError, match="sizes of the bottleneck and of every layer"):
        pxm.LinearDecoder([3])


def test_vgg19_has_the_blocks_of_the_paper_and_a_skip_that_is_a_linear_map_of_an_early_state():
    model = pxm.VGG(19, skip=True, width=1 / 64)
    channels = [vode.shape[0] for vode in model.vodes]
    assert channels == [1, 1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 10]
    # the second convolution, after the first pooling: 1 channel of 16x16, onto 8 features
    assert model.shortcut.nn.weight.shape == (8, 256)
    x = jax.random.normal(jax.random.key(0), (3, 32, 32))
    with pxu.step(model, "init"):
        u = model(x)
        early, last = model.vodes[1].get("h"), model.vodes[15].get("h")
    features = last.reshape(-1) + model.shortcut.nn.weight.get() @ early.reshape(-1)
    features = features + model.shortcut.nn.bias.get()
    head = model.layers[-1].nn
    np.testing.assert_allclose(u, head.weight.get() @ features + head.bias.get(), rtol=1e-5)


def test_the_depth_of_a_vgg_may_be_given():
    numbered, named = pxm.VGG(5, width=1 / 16), pxm.VGG5(width=1 / 16)
    assert [v.shape for v in numbered.vodes] == [v.shape for v in named.vodes]
    assert numbered.shortcut is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"channels": 6},
            "there is no VGG-6 here; pass one of 5, 7, 9, 19, or the output channels",
        ),
        ({"channels": 5, "skip": 9}, "skip=9 is none of the 4 convolutions; pass a number from 1"),
    ],
)
def test_an_unknown_depth_or_skip_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pxm.VGG(**arguments, width=1 / 64)
