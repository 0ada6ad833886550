"""Reading a checkpoint from bytes, and expecting its refusal."""

import pytest

from maskrcnn_jax.unpickling import UnpickleError, load_tensors


@pytest.fixture
def load(tmp_path):
    def read(data, name="weights.pkl"):
        path = tmp_path / name
        path.write_bytes(data)
        return load_tensors(path)

    return read


@pytest.fixture
def refuse(load, tmp_path, monkeypatch):
    """Expects a refusal, that no code was run, and that no file was written."""

    def check(data, message, name="weights.pkl"):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UnpickleError, match=message) as error:
            load(data, name)
        assert name in str(error.value)
        assert [path.name for path in tmp_path.rglob("*")] == [name]

    return check
