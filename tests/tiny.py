"""What the tests of training share: the tiny experiment and its training step, compiled only once."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as cache
from tiny_config import get_config

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import make_train_step

_OPTIONS = {
    "jax_persistent_cache_min_compile_time_secs": 0.1,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_disable_most_optimizations": True,  # They take longer than all steps together.
}


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """Tests of one session share what they compile, though every training makes its functions anew."""
    options = _OPTIONS | {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    cache.reset_cache()


@pytest.fixture
def config():
    """The tiny experiment without validation, for which another function would have to be compiled."""
    config = get_config()
    config.data.validation_images = 0
    return config


@pytest.fixture(scope="session")
def model_config():
    return MaskRCNNConfig.from_dict(get_config().model.to_dict())


@pytest.fixture(scope="session")
def optimizer(model_config):
    config = get_config()
    return make_optimizer(model_config, warmup_steps_decay(**config.schedule), **config.optimizer)


@pytest.fixture(scope="session")
def step_function(compiled_once, model_config, optimizer):
    return make_train_step(MaskRCNN(model_config), optimizer)
